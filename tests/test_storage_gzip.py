"""Decompression a part at a time equals that of Python's gzip."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from paretorch.storage.gzip_content import PIECE, GzipContent


@pytest.mark.parametrize("members", [(), (0,), (5,), (3 * PIECE, 0, 7), (PIECE, PIECE)])
@pytest.mark.parametrize("zeros", [0, 1, 1 << 20])
@pytest.mark.parametrize("step", [1 << 30, 1000])
def test_gzip_content_equals_that_of_the_standard_library(members: tuple[int, ...], zeros: int, step: int) -> None:
    draws = random.Random(0)
    content = b"".join(gzip.compress(draws.randbytes(size // 2) + bytes(size - size // 2)) for size in members)
    file, pieces = GzipContent(content + bytes(zeros if members else 0)), list[bytes]()
    while members and (piece := file.read(step)):
        assert len(piece) <= step
        pieces.append(piece)
    assert b"".join(pieces) == gzip.decompress(content)


def test_gzip_content_that_is_damaged_is_an_error() -> None:
    content = gzip.compress(bytes(range(256)) * 100)
    for cut in range(0, len(content), 7):
        with pytest.raises(EOFError):
            GzipContent(content[:cut]).read(1 << 20)
    for place in range(10, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises((zlib.error, EOFError)):
            GzipContent(bytes(damaged)).read(1 << 20)
    with pytest.raises(zlib.error):
        GzipContent(content + b"text").read(1 << 20)
