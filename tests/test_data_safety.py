"""Files that are not what their names say: no program is run, no memory is taken, nothing waits, and a check goes on."""

from __future__ import annotations

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
from paretorch.storage.regular_files import IrregularFileError, TooLargeError, open_regular, read_regular
from paretorch.workloads.checks.checkup import Checkup, Probing, check, check_counts, read_each
from paretorch.workloads.formats import cifar, pictures
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.formats.cityscapes import read_numbers
from paretorch.workloads.formats.idx import read_idx
from paretorch.workloads.formats.pictures import UnreadableError, read_rgb
from paretorch.workloads.formats.voc_masks import mask_of
from paretorch.workloads.packs.pack import Manifest
from paretorch.workloads.reading.selection import ranked
from paretorch.workloads.reading.source import DamagedError, Example, Item

PHOTOGRAPH = pixels(40, 56, np.random.default_rng(0))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of Ghostscript's name that leaves a mark where it is run."""
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
def test_postscript_is_no_image_whatever_its_name(tmp_path: Path, ghostscript: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(UnreadableError, match="expected JPEG, PNG, BMP, WEBP"):
        read_rgb(tmp_path / name, name)
    with pytest.raises(UnreadableError, match="expected PNG"):
        read_numbers(tmp_path / name, name)
    assert not ghostscript.exists()


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PPM", "ICO", "PCX", "TGA", "SGI", "JPEG2000"])
def test_only_the_formats_of_the_extensions_are_decoded(tmp_path: Path, form: str) -> None:
    Image.fromarray(PHOTOGRAPH).save(tmp_path / "x.png", form)
    with pytest.raises(UnreadableError, match="of a kind that is not known"):
        read_rgb(tmp_path / "x.png", "x.png")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "MPO"])
def test_a_photograph_under_the_extension_of_another_format_is_read(tmp_path: Path, form: str) -> None:
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
    """By how much the peak memory of a process of its own grows while it runs ``code``."""
    script = f"""
import resource, sys, torch, PIL.Image, PIL.ImageOps, torchvision
from pathlib import Path
from paretorch.workloads.formats.pictures import UnreadableError, read_rgb
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


@pytest.mark.parametrize(("width", "height"), [(13_000, 13_000), (9_000, 8_000), (60_000, 60_000)])
def test_pixels_are_counted_before_memory_is_taken(tmp_path: Path, width: int, height: int) -> None:
    path = png(tmp_path / "x.png", width, min(height, 13_000))
    if height > 13_000:  # only the header says so
        content = bytearray(path.read_bytes())
        content[20:24] = struct.pack(">I", height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"pixels, at most 67,108,864 are read: make it smaller"):
        read_rgb(path, "x.png")
    assert megabytes("read_rgb(paths[0], 'x.png')", path) < 60


@pytest.mark.long
def test_the_largest_image_takes_few_copies_of_itself(tmp_path: Path) -> None:
    path = png(tmp_path / "x.png", 8192, 8192)
    assert megabytes("read_rgb(paths[0], 'x.png')", path) < 700
    with Image.open(path) as picture:
        picture.convert("RGBA").save(tmp_path / "alpha.png", compress_level=1)
    assert megabytes("read_rgb(paths[0], 'alpha.png')", tmp_path / "alpha.png") < 700


def test_an_image_is_the_same_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = np.dstack([PHOTOGRAPH, np.arange(40 * 56, dtype=np.uint64).reshape(40, 56).astype(np.uint8)])
    deep = np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29
    palette = Image.fromarray(PHOTOGRAPH).quantize(16)
    palette.info["transparency"] = 3
    kinds = {"alpha": Image.fromarray(colours), "deep": Image.fromarray(deep), "palette": palette}
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.png")
        whole = read_rgb(tmp_path / f"{name}.png", name)
        with monkeypatch.context() as small:
            small.setattr(pictures, "STRIP", 56 * 7)
            assert torch.equal(read_rgb(tmp_path / f"{name}.png", name), whole), name


def packed_idx(path: Path, shape: tuple[int, ...], held: int) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
        for _ in range(held // (1 << 20)):
            file.write(bytes(1 << 20))
        file.write(bytes(held % (1 << 20)))
    return path


def test_idx_of_mnists_size_is_read(tmp_path: Path) -> None:
    found = read_idx(packed_idx(tmp_path / "train-images-idx3-ubyte.gz", (60_000, 28, 28), 60_000 * 784))
    assert found.shape == (60_000, 28, 28)
    assert int(found.sum()) == 0


@pytest.mark.parametrize(
    ("shape", "held", "message"),
    [
        ((10, 28, 28), 3 << 30, "it holds more"),
        ((3_000_000, 28, 28), 1 << 20, "at most 268,435,456 are read"),
        ((4_000_000_000, 4_000_000_000, 4_000_000_000), 10, "at most 268,435,456 are read"),
        ((300_000, 28, 28), 1 << 20, "it holds 1048576"),
    ],
)
def test_no_more_of_a_packed_file_is_unpacked_than_its_head_says(
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
    [("(4000, 4000, 3)", "it holds 64: copy it again"), ("(40000, 40000, 3)", "at most 268,435,456 are read")],
)
def test_an_arrays_header_is_compared_with_its_file(tmp_path: Path, version: bytes, shape: str, message: str) -> None:
    path = npy(tmp_path / "0.npy", shape, version=version)
    with pytest.raises(UnreadableError, match=message):
        read_array(path, "0.npy")
    assert megabytes("read_array(paths[0], '0.npy')", path) < 60
    assert read_array(npy(tmp_path / "1.npy", "(4, 4)", version=version), "1.npy").shape == (4, 4)


@pytest.mark.parametrize(
    "read", [lambda p: read_rgb(p, "x"), lambda p: read_array(p, "x"), lambda p: read_numbers(p, "x")]
)
@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "device", "folder"])
def test_what_is_no_regular_file_is_never_read(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
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


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    Image.fromarray(PHOTOGRAPH).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert torch.equal(read_rgb(tmp_path / "b.png", "b"), torch.from_numpy(PHOTOGRAPH.copy()).permute(2, 0, 1))


def test_a_file_of_more_than_the_bound_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "data_batch_1.bin", "wb") as file:
        file.truncate(1 << 40)  # of zeros, and of no blocks
    with pytest.raises(TooLargeError, match="more than 307,300,000 bytes"):
        read_regular(tmp_path / "data_batch_1.bin", cifar.MOST)
    assert read_regular(Path(__file__)).startswith(b'"""Files')


def test_one_bad_file_of_each_kind_does_not_end_a_check(tmp_path: Path, ghostscript: Path) -> None:
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
    """A reader whose second image raises what no reader should."""

    items = (Item("a"), Item("b"), Item("c"))
    kind = "image files"

    def read(self, index: int) -> Example:
        if index == 1:
            raise RuntimeError("a bug of the decoder")
        return torch.zeros(1), torch.zeros(1)


def test_whatever_an_image_raises_is_a_reason_of_its_own(tmp_path: Path) -> None:
    assert Probing(Broken())[[0, 1, 2]] == {"b": "RuntimeError: a bug of the decoder"}
    report = Checkup("anything")
    read_each(report, "anything", ["a", "b", "c"], Broken().read, None, below="val/")
    assert report.found == ["3 images read, 1 of them unreadable"]
    assert "val/b: RuntimeError: a bug of the decoder" in report.problems[0]


def test_a_bad_file_of_one_split_does_not_hide_the_other() -> None:
    def count(folder: Path, split: str) -> int:
        if split == "train":
            raise PermissionError(13, "Permission denied", "train-images")
        return 7

    report = check_counts("Digits", ".", lambda: Path(), count, {"train": 9, "test": 7}, ("images", "copy"), None)
    assert "test: 7 images (published: 7)" in report.found
    assert ["Permission denied" in problem for problem in report.problems] == [True]


@pytest.mark.parametrize("change", [{"rows": -1}, {"edge": 0}, {"length": -5}])
def test_a_packs_counts_below_zero_are_damage(tmp_path: Path, change: dict[str, int]) -> None:
    made = Manifest("classification", 64, False, 0, {}, {})
    (tmp_path / "packed" / "x").mkdir(parents=True)
    path = tmp_path / "packed" / "x" / "pack.json"
    path.write_text(json.dumps(json.loads(made.to_json()) | change))
    with pytest.raises(DamagedError, match="a count is below zero"):
        Manifest.read(path.parent)
    assert any("a count is below zero" in problem for report in check(tmp_path) for problem in report.problems)


def test_masks_of_many_objects_are_not_held_at_once() -> None:
    square = [10.0, 10.0, 500.0, 10.0, 500.0, 500.0, 10.0, 500.0]
    small = [100.0, 100.0, 120.0, 100.0, 120.0, 120.0, 100.0, 120.0]
    objects = [[1, 3, False, [small]], *([n, 5, False, [square]] for n in range(2, 80))]
    mask: Tensor = mask_of(objects, (512, 512), "x")
    assert [int(mask[at, at]) for at in (0, 110, 300)] == [0, 3, 5]
    code = f"from paretorch.workloads.formats.voc_masks import mask_of; mask_of({objects!r}, (2048, 2048), 'x')"
    assert megabytes(code) < 100  # one of them has 4 MB


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_scans_of_a_progressive_image_are_counted_before_it_is_decoded(tmp_path: Path) -> None:
    """Each scan passes over all pixels: a small file of thousands would hold a reader for minutes."""
    stream = io.BytesIO()
    Image.new("L", (640, 640)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    assert read_rgb(written(tmp_path / "plain.jpg", data), "plain.jpg").shape == (3, 640, 640)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableError, match="more than 100 scans"):
        read_rgb(written(tmp_path / "scans.jpg", data[:-2] + last * 200 + b"\xff\xd9"), "scans.jpg")
    with pytest.raises(UnreadableError, match="more than its pixels take"):
        read_rgb(written(tmp_path / "tail.jpg", data + bytes(1 << 25)), "tail.jpg")


def test_a_name_that_is_no_text_has_its_place_in_the_order() -> None:
    names = ["a.jpg", os.fsdecode(b"na\xffme.jpg"), "b.jpg"]
    assert sorted(ranked(names, seed=0)) == sorted(names)
    assert [name for name in ranked(names, seed=0) if name.isascii()] == ranked(["a.jpg", "b.jpg"], seed=0)
