"""Writing of pages, without replacing a file of other origin."""

from __future__ import annotations

from pathlib import Path

from paretorch.storage import atomic
from paretorch.storage.regular_files import IrregularFileError, TooLargeError, read_regular

HTML = b"paretorch</title>"  # in the head of every page
MARKDOWN = b"\n## How it was made\n"  # the last heading of every report


def check_page(path: Path, mark: bytes) -> None:
    """Checks that a page may be written.

    Args:
        path: of the page.
        mark: bytes that every page of this package contains.

    Raises:
        ValueError: the file exists and is not such a page.
    """
    try:
        ours = mark in read_regular(path)
    except FileNotFoundError:
        return
    except (IrregularFileError, TooLargeError):
        ours = False
    if not ours:
        raise ValueError(
            f"{path} is not a page that paretorch wrote, so it is not replaced: move it away, or name another folder (--out)"
        )


def write_page(path: Path, text: str, mark: bytes) -> None:
    """Writes a page atomically, replacing an earlier one; see :func:`check_page`."""
    check_page(path, mark)
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8 atomically; what cannot be encoded, such as parts of a file's name, is escaped."""
    atomic.write(path, text.encode("utf-8", "backslashreplace"))
