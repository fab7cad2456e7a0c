"""JSON files, with numbers that are not finite as strings.

A text ``nan``, ``inf`` or ``-inf``, such as the name of a task, is written with a backslash in front, and a text of backslashes
followed by one of these with one more. Earlier versions wrote such a text without one: names are read by :func:`name_from_json`,
which accepts both.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from paretorch.storage import atomic
from paretorch.storage.regular_files import read_regular

NOT_FINITE = ("nan", "inf", "-inf")
ESCAPED = re.compile(r"\\*(?:nan|inf|-inf)")  # texts that are written with one more backslash


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
    if isinstance(value, str) and ESCAPED.fullmatch(value):
        return f"\\{value}"
    return value


def from_json(value: Any) -> Any:
    r"""The inverse of :func:`to_json` for plain values: the strings nan, inf and -inf become numbers.

    Example:
        >>> from_json(to_json({"names": ["nan", "left"], "loss": math.inf}))
        {'names': ['nan', 'left'], 'loss': inf}
    """
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, str):
        return value
    return float(value) if value in NOT_FINITE else name_from_json(value)


def name_from_json(text: str) -> str:
    """A text that :func:`to_json` wrote where there is no number: nan, inf and -inf remain texts.

    Raises:
        ValueError: it is no text.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a text, got {text!r}"[:200])
    return text[1:] if text[:1] == "\\" and ESCAPED.fullmatch(text) else text


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


def read_json(path: Path, allow_nan: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        path: of the file.
        allow_nan: whether a number may be nan or infinite; see :func:`write_json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON; the message is the reason, without the path.
    """
    return parse_json(read_regular(path), allow_nan)


def parse_json(text: str | bytes, allow_nan: bool = False) -> Any:
    """The value in a JSON text.

    Args:
        text: in UTF-8.
        allow_nan: whether a number may be nan or infinite; see :func:`write_json`.

    Raises:
        ValueError: it is not JSON, is nested too deeply, has a number that is not finite, or a text that is not Unicode.
    """
    try:
        value = json.loads(text, parse_constant=None if allow_nan else _refuse_constant)
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") in text.lower():  # type: ignore[operator]
            _check_unicode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read as JSON: {error}") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no number {name}")


def _check_unicode(value: Any) -> None:
    """Refuses half of a surrogate pair, which JSON can express and which cannot be printed."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text contains half of a surrogate pair") from None
