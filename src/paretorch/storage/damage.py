"""Errors from wrong content of a file, as one message that names the file."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BROKEN_ARCHIVE = (  # errors of zipfile and zlib
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError, ArithmeticError, RuntimeError,
)  # fmt: skip
WRONG = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)


class DamagedFileError(ValueError):
    """A file whose content is not what was written; the message names the file and the cure."""


@contextmanager
def naming_damaged(path: Path, cure: str) -> Iterator[None]:
    """A context in which values of a file are converted: errors become one message that names the file.

    Args:
        path: the file.
        cure: a sentence, without the full stop.

    Raises:
        DamagedFileError: the block raised an error that missing or wrong values cause.

    Example:
        >>> with naming_damaged(Path("run.json"), "Restore it"):
        ...     {"epochs": 3}["seed"]
        Traceback (most recent call last):
        ...
        paretorch.storage.damage.DamagedFileError: run.json is damaged: it has no 'seed'. Restore it
    """
    try:
        yield
    except DamagedFileError:
        raise
    except WRONG as error:
        if isinstance(error, KeyError):
            reason = f"it has no {error}"
        else:
            reason = str(error) or type(error).__name__
        raise DamagedFileError(f"{path} is damaged: {reason}. {cure}") from error
