"""Array files of every number type, damaged headers, and other files with the extension of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dense_folders import first_scene, narrow_nyuv2, write_nyuv2
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.loading.unreadable import UnreadableError


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64", ">u2", "longdouble"])
def test_arrays_of_every_number_type_are_read(tmp_path: Path, kind: str) -> None:
    place = write_nyuv2(tmp_path, train=2, val=1)
    expected = first_scene(narrow_nyuv2(tmp_path))
    for folder in ("label", "depth") if kind == "longdouble" else ("label",):
        path = place / "val" / folder / "0.npy"
        np.save(path, np.where(np.load(path) < 0, 0, np.load(path)).astype(kind))
    found = first_scene(narrow_nyuv2(tmp_path))
    assert torch.equal(found.labels["segmentation"], expected.labels["segmentation"].clamp(min=0))
    assert torch.equal(found.labels["depth"], expected.labels["depth"])
    np.save(place / "val" / "label" / "0.npy", np.full((32, 64), 2**64 - 1, np.uint64))
    with pytest.raises(UnreadableError, match="expected classes 0 to 12"):
        first_scene(narrow_nyuv2(tmp_path))


def test_arrays_with_any_damaged_header_byte_are_unreadable(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((2, 3), np.float32))
    whole = (tmp_path / "0.npy").read_bytes()
    reasons = []
    for place in range(128):
        for byte in (b"\x00", b"'", b"(", b"-", b"\xff"):
            (tmp_path / "1.npy").write_bytes(whole[:place] + byte + whole[place + 1 :])
            try:
                read_array(tmp_path / "1.npy", "1.npy")
            except UnreadableError as error:
                reasons.append(error.reason)
    assert len(reasons) > 250
    assert all(reasons)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello" * 30, "expected a file as np.save writes it, got one that begins with b'hello"),
        (b"", "expected a file as np.save writes it, got an empty one"),
        (b"PK\x03\x04 and so on", "got an archive"),
        (b"\x80\x04\x95 pickled", "it contains Python objects"),
    ],
)
def test_array_errors_describe_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "0.npy").write_bytes(content)
    with pytest.raises(UnreadableError, match=f"label/0.npy: .*{reason}"):
        read_array(tmp_path / "0.npy", "label/0.npy")


def test_array_headers_above_the_memory_are_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((32, 64, 1), np.float32))
    content = (tmp_path / "0.npy").read_bytes()
    absurd = b"(32, 64" + 14 * b"0" + b", 1), }"
    (tmp_path / "0.npy").write_bytes(content.replace(b"(32, 64, 1), }" + 14 * b" ", absurd))
    with pytest.raises(
        UnreadableError,
        match=r"its header cannot be used: it declares .* 819,200,000,000,000,000 bytes; at most 268,435,456",
    ):
        read_array(tmp_path / "0.npy", "0.npy")


def test_array_errors_name_the_order_of_axes(tmp_path: Path) -> None:
    place = write_nyuv2(tmp_path, train=2, val=1)
    expected = "image/0.npy: expected an image, height x width x 3, got 3 x 32 x 64"
    for path in (place / "val" / "image").iterdir():
        np.save(path, np.moveaxis(np.load(path), -1, 0))
    with pytest.raises(ValueError, match=expected):
        narrow_nyuv2(tmp_path).data()
    np.save(place / "train" / "image" / "0.npy", np.zeros((3, 32, 64)))
    assert narrow_nyuv2(tmp_path).source().size("train") == (32, 64), "the first image does not decide for the others"
