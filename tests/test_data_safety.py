"""Malformed and irregular files: no program runs, little memory is used, nothing blocks, and a check continues."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from command_line import call
from image_folders import pixels, write_imagenet
from pack_folders import change_manifest
from paretorch.storage.regular_files import IrregularFileError, TooLargeError, open_regular, read_regular
from paretorch.workloads.checks.data_report import DataReport, read_images, report_counts
from paretorch.workloads.checks.image_reports import ReadFailures, report_images
from paretorch.workloads.formats import cifar, image_files
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.formats.cityscapes import read_numbers
from paretorch.workloads.formats.idx import read_idx
from paretorch.workloads.formats.image_files import read_rgb
from paretorch.workloads.formats.locating import PublishedData
from paretorch.workloads.formats.voc_masks import voc_mask
from paretorch.workloads.loading.image_source import SelectedImage, StoredSquare
from paretorch.workloads.loading.selection import ordered
from paretorch.workloads.loading.unreadable import DamagedError, UnreadableError
from paretorch.workloads.packs.pack import Manifest

PHOTOGRAPH = pixels(40, 56, np.random.default_rng(0))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with the name of Ghostscript that creates a file when it runs."""
    mark, folder = tmp_path / "it ran", tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\necho 10.0\ntouch '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


@pytest.mark.parametrize("name", ["x.JPEG", "x.png", "x.bmp", "x.webp"])
def test_image_files_of_postscript_are_unreadable_with_any_extension(
    tmp_path: Path, ghostscript: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(UnreadableError, match="expected JPEG, PNG, BMP, WEBP"):
        read_rgb(tmp_path / name, name)
    with pytest.raises(UnreadableError, match="expected PNG"):
        read_numbers(tmp_path / name, name)
    assert not ghostscript.exists()


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PPM", "ICO", "PCX", "TGA", "SGI", "JPEG2000"])
def test_image_files_of_other_formats_are_unreadable(tmp_path: Path, form: str) -> None:
    Image.fromarray(PHOTOGRAPH).save(tmp_path / "x.png", form)
    with pytest.raises(UnreadableError, match="not an image of a known format"):
        read_rgb(tmp_path / "x.png", "x.png")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "MPO"])
def test_image_files_with_the_extension_of_another_format_are_read(tmp_path: Path, form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    Image.fromarray(PHOTOGRAPH).save(tmp_path / "x.JPEG", form, **options)
    found = (
        read_rgb(tmp_path / "x.JPEG", "x.JPEG").permute(1, 2, 0).float() - torch.from_numpy(PHOTOGRAPH.copy()).float()
    )
    assert float(found.abs().mean()) < (8 if form in ("JPEG", "MPO") else 1e-6)


def png(path: Path, width: int, height: int) -> Path:
    """A PNG of zeros, RGB, a thousandth of its pixels in bytes."""
    pack, row = zlib.compressobj(9), bytes(1 + 3 * width)
    rows = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def megabytes(code: str, *arguments: Path) -> float:
    """The growth of the peak memory of a separate process while it runs ``code``."""
    script = f"""
import resource, sys, torch, PIL.Image, PIL.ImageOps, torchvision
from pathlib import Path
from paretorch.workloads.formats.image_files import read_rgb
from paretorch.workloads.loading.unreadable import UnreadableError
from paretorch.workloads.formats.idx import read_idx
from paretorch.workloads.formats.array_files import read_array
paths = list(map(Path, sys.argv[1:]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {code}
except (UnreadableError, ValueError) as error:
    print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout.split()[-1])


@pytest.mark.long
@pytest.mark.parametrize(("width", "height"), [(13_000, 13_000), (9_000, 8_000), (60_000, 60_000)])
def test_image_file_pixels_are_counted_before_memory_is_allocated(tmp_path: Path, width: int, height: int) -> None:
    path = png(tmp_path / "x.png", width, min(height, 13_000))
    if height > 13_000:  # only in the header
        content = bytearray(path.read_bytes())
        content[20:24] = struct.pack(">I", height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"pixels, at most 67,108,864 are read: make it smaller"):
        read_rgb(path, "x.png")
    assert megabytes("read_rgb(paths[0], 'x.png')", path) < 60


@pytest.mark.long
def test_image_file_of_maximal_size_needs_few_copies_of_memory(tmp_path: Path) -> None:
    path = png(tmp_path / "x.png", 8192, 8192)
    assert megabytes("read_rgb(paths[0], 'x.png')", path) < 700
    with Image.open(path) as picture:
        picture.convert("RGBA").save(tmp_path / "alpha.png", compress_level=1)
    assert megabytes("read_rgb(paths[0], 'alpha.png')", tmp_path / "alpha.png") < 700


def test_image_files_in_strips_equal_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.dstack([PHOTOGRAPH, np.arange(40 * 56, dtype=np.uint64).reshape(40, 56).astype(np.uint8)])
    deep = np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29
    palette = Image.fromarray(PHOTOGRAPH).quantize(16)
    palette.info["transparency"] = 3
    kinds = {"alpha": Image.fromarray(colours), "deep": Image.fromarray(deep), "palette": palette}
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.png")
        whole = read_rgb(tmp_path / f"{name}.png", name)
        with monkeypatch.context() as small:
            small.setattr(image_files, "STRIP", 56 * 7)
            assert torch.equal(read_rgb(tmp_path / f"{name}.png", name), whole), name


def packed_idx(path: Path, shape: tuple[int, ...], held: int) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
        for _ in range(held // (1 << 20)):
            file.write(bytes(1 << 20))
        file.write(bytes(held % (1 << 20)))
    return path


def test_idx_file_of_the_size_of_mnist_is_read(tmp_path: Path) -> None:
    found = read_idx(packed_idx(tmp_path / "train-images-idx3-ubyte.gz", (60_000, 28, 28), 60_000 * 784))
    assert found.shape == (60_000, 28, 28)
    assert int(found.sum()) == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "held", "message"),
    [
        ((10, 28, 28), 3 << 30, "it contains more"),
        ((3_000_000, 28, 28), 1 << 20, "at most 268,435,456 are read"),
        ((4_000_000_000, 4_000_000_000, 4_000_000_000), 10, "at most 268,435,456 are read"),
        ((300_000, 28, 28), 1 << 20, "it contains 1048576"),
    ],
)
def test_idx_files_are_decompressed_to_the_declared_size_only(
    tmp_path: Path, shape: tuple[int, ...], held: int, message: str
) -> None:
    path = packed_idx(tmp_path / "x-idx3-ubyte.gz", shape, held)
    with pytest.raises(ValueError, match=message):
        read_idx(path)
    assert megabytes("read_idx(paths[0])", path) < 60


def npy(path: Path, shape: str, kind: str = "<f4", version: bytes = b"\x01\x00") -> Path:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header) + 1)
    path.write_bytes(b"\x93NUMPY" + version + length + header + b"\n" + bytes(64))
    return path


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [("(4000, 4000, 3)", "the file has 64: copy it again"), ("(40000, 40000, 3)", "at most 268,435,456 are read")],
)
@pytest.mark.sampled(3)
def test_array_headers_are_compared_with_the_file(tmp_path: Path, version: bytes, shape: str, message: str) -> None:
    path = npy(tmp_path / "0.npy", shape, version=version)
    with pytest.raises(UnreadableError, match=message):
        read_array(path, "0.npy")
    assert megabytes("read_array(paths[0], '0.npy')", path) < 60
    assert read_array(npy(tmp_path / "1.npy", "(4, 4)", version=version), "1.npy").shape == (4, 4)


@pytest.mark.parametrize(
    "read", [lambda p: read_rgb(p, "x"), lambda p: read_array(p, "x"), lambda p: read_numbers(p, "x")]
)
@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "device", "folder"])
def test_irregular_files_are_never_read(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "x.png"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe" if kind != "fifo" else path)
        if kind != "fifo":
            path.symlink_to(tmp_path / "pipe")
    with pytest.raises(UnreadableError, match=r"is (a FIFO|a device|a folder), expected a regular file: remove it"):
        read(path)
    with pytest.raises(IrregularFileError):
        open_regular(path)


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    Image.fromarray(PHOTOGRAPH).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert torch.equal(read_rgb(tmp_path / "b.png", "b"), torch.from_numpy(PHOTOGRAPH.copy()).permute(2, 0, 1))


def test_files_above_the_bound_are_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "data_batch_1.bin", "wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(TooLargeError, match="more than 307,300,000 bytes"):
        read_regular(tmp_path / "data_batch_1.bin", cifar.MOST)
    assert read_regular(Path(__file__)).startswith(b'"""Malformed')


def test_data_check_continues_after_bad_files(tmp_path: Path, ghostscript: Path) -> None:
    root = write_imagenet(tmp_path)
    folder = next((root / "train").iterdir())
    (folder / "a.JPEG").write_bytes(POSTSCRIPT)
    os.mkfifo(folder / "b.JPEG")
    (folder / "c.JPEG").symlink_to("/dev/zero")
    png(folder / "d.JPEG", 13_000, 13_000)
    (folder / "e.JPEG").mkdir()
    (folder / "f.JPEG").write_bytes(b"")
    (folder / "g.JPEG").symlink_to(folder / "g.JPEG")
    (tmp_path / "packed" / "classification-288").mkdir(parents=True)
    os.mkfifo(tmp_path / "packed" / "classification-288" / "pack.json")
    code, printed = call("data", "check", str(tmp_path), "--workers", "0")
    assert code == 1
    assert "7 of them unreadable" in printed
    assert "pack.json is a FIFO" in printed
    for name in "abcdefg":
        assert f"{name}.JPEG: " in printed
    assert not ghostscript.exists()


class Broken:
    """A reader whose second image raises an unexpected exception."""

    items = (SelectedImage("a"), SelectedImage("b"), SelectedImage("c"))
    kind = "image files"

    def read(self, index: int) -> StoredSquare:
        if index == 1:
            raise RuntimeError("a bug of the decoder")
        return torch.zeros(1), torch.zeros(1)


def test_data_check_reports_every_exception(tmp_path: Path) -> None:
    assert ReadFailures(Broken())[[0, 1, 2]] == {"b": "RuntimeError: a bug of the decoder"}
    report = DataReport("anything")
    read_images(report, "anything", ["a", "b", "c"], Broken().read, None, prefix="val/")
    assert report.found == ["3 images read, 1 of them unreadable"]
    assert "val/b: RuntimeError: a bug of the decoder" in report.problems[0]


def test_data_check_reports_each_split() -> None:
    def read(folder: Path, split: str) -> tuple[object, range]:
        if split == "train":
            raise PermissionError(13, "Permission denied", "train-images")
        return None, range(7)

    data = PublishedData("Digits", "digits", "", "")
    report = report_counts(data, ".", Path, read, {"train": 9, "test": 7}, "images", "copy", None)
    assert "test: 7 images (published: 7)" in report.found
    assert ["Permission denied" in problem for problem in report.problems] == [True]


@pytest.mark.parametrize("change", [{"rows": -1}, {"edge": 0}, {"length": -5}])
def test_pack_with_negative_counts_is_damaged(tmp_path: Path, change: dict[str, int]) -> None:
    made = Manifest("classification", 64, False, 0, {}, {})
    (tmp_path / "packed" / "x").mkdir(parents=True)
    path = tmp_path / "packed" / "x" / "pack.json"
    path.write_text(json.dumps(made.to_json()))
    change_manifest(path, **change)
    with pytest.raises(DamagedError, match="a count is below zero"):
        Manifest.read(path.parent)
    assert any("a count is below zero" in problem for report in report_images(tmp_path) for problem in report.problems)


def test_masks_of_many_objects_need_little_memory() -> None:
    square = [10.0, 10.0, 500.0, 10.0, 500.0, 500.0, 10.0, 500.0]
    small = [100.0, 100.0, 120.0, 100.0, 120.0, 120.0, 100.0, 120.0]
    objects = [[1, 3, False, [small]], *([n, 5, False, [square]] for n in range(2, 80))]
    mask: Tensor = voc_mask(objects, (512, 512), "x")
    assert [int(mask[at, at]) for at in (0, 110, 300)] == [0, 3, 5]
    code = f"from paretorch.workloads.formats.voc_masks import voc_mask; voc_mask({objects!r}, (2048, 2048), 'x')"
    assert megabytes(code) < 100  # one of them has 4 MB


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_image_file_scans_are_counted_before_decoding(tmp_path: Path) -> None:
    """Each scan passes over all pixels: decoding a small file with thousands of scans would take minutes."""
    stream = io.BytesIO()
    Image.new("L", (640, 640)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    assert read_rgb(write_bytes(tmp_path / "plain.jpg", data), "plain.jpg").shape == (3, 640, 640)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableError, match="more than 100 scans"):
        read_rgb(write_bytes(tmp_path / "scans.jpg", data[:-2] + last * 200 + b"\xff\xd9"), "scans.jpg")
    with pytest.raises(UnreadableError, match="more than its pixels take"):
        read_rgb(write_bytes(tmp_path / "tail.jpg", data + bytes(1 << 25)), "tail.jpg")


def test_order_of_names_that_are_not_text() -> None:
    names = ["a.jpg", os.fsdecode(b"na\xffme.jpg"), "b.jpg"]
    assert sorted(ordered(names, seed=0)) == sorted(names)
    assert [name for name in ordered(names, seed=0) if name.isascii()] == ordered(["a.jpg", "b.jpg"], seed=0)


@pytest.mark.parametrize(
    "read", [lambda p: read_rgb(p, "x"), lambda p: read_array(p, "x"), lambda p: read_numbers(p, "x"), Manifest.read]
)
def test_file_is_not_damaged_because_no_handle_is_left(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(PHOTOGRAPH).save(path)
    (tmp_path / "pack.json").write_text("{}")

    def exhausted(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        read(tmp_path if read == Manifest.read else path)
