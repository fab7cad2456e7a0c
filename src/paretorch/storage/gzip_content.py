"""Decompression of gzip content, a part at a time.

Zeros after the content are skipped at once. :class:`gzip.GzipFile` reads them byte by byte: a file that was extended by zeros
takes minutes.
"""

from __future__ import annotations

import re
import zlib

FORMAT = 16 + zlib.MAX_WBITS  # of zlib: with gzip's header and checksum
PIECE = 1 << 16  # compressed bytes that are decompressed at a time
ZEROS = re.compile(rb"\0*")


class GzipContent:
    """The decompressed content of a gzip file, whose members are joined.

    Args:
        content: of the file.

    Example:
        >>> import gzip
        >>> file = GzipContent(gzip.compress(b"left") + gzip.compress(b"right") + bytes(10))
        >>> file.read(6), file.read(6), file.read(6)
        (b'leftri', b'ght', b'')
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0
        self._member = zlib.decompressobj(FORMAT)

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, or fewer at the end.

        Raises:
            EOFError: the content ends within a member.
            zlib.error: it is no gzip content, or a checksum differs.
        """
        pieces, missing = [], count
        while missing > 0 and not (self._member.eof and self._is_last()):
            piece = self._member.decompress(self._member.unconsumed_tail or self._next_piece(), missing)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _next_piece(self) -> bytes:
        piece = self._content[self._place : self._place + PIECE]
        if not piece:
            raise EOFError("it ends before the compressed data do")
        self._place += len(piece)
        return piece

    def _is_last(self) -> bool:
        """Whether nothing but zeros follows the member; otherwise the next one begins."""
        zeros = ZEROS.match(self._content, self._place - len(self._member.unused_data))
        assert zeros is not None
        self._place = zeros.end()
        if self._place == len(self._content):
            return True
        self._member = zlib.decompressobj(FORMAT)
        return False
