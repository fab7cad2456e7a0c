"""JSON files, with numbers that are not finite as strings."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretorch.storage import atomic
from paretorch.storage.regular_files import read_regular

NOT_FINITE = ("nan", "inf", "-inf")


def to_json(value: Any) -> Any:
    """A value as strict JSON; nan, inf and -inf become strings, because JSON has no such numbers.

    Args:
        value: nested dataclasses, mappings, sequences and plain values.

    Example:
        >>> to_json({"losses": (0.5, math.nan)})
        {'losses': [0.5, 'nan']}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(value: Any) -> Any:
    """The inverse of :func:`to_json` for plain values: the strings nan, inf and -inf become numbers."""
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return float(value) if isinstance(value, str) and value in NOT_FINITE else value


def write_json(path: Path, value: Any, allow_nan: bool = False) -> None:
    """Writes a JSON value as a complete file or not at all.

    Args:
        path: of the file.
        value: plain values in dicts and lists.
        allow_nan: whether a number may be nan or infinite; it is written as Python's json does, which is no strict JSON.

    Raises:
        ValueError: a number is not finite; see :func:`to_json`.
        OSError: the disk is full or the folder cannot be written.
    """
    atomic.write(path, json.dumps(value, indent=1, allow_nan=allow_nan).encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; the message is the reason, without the path.
    """
    return parse_json(read_regular(path))


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read as JSON: {error}") from None
