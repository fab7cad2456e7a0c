"""Plain values of a file as values of annotated types, with a message about the first one that does not fit."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, ForwardRef, Union, get_args, get_origin, get_type_hints

NUMBERS: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,)}  # a bool is no number
LARGEST = 1 << 63  # of a whole number
MOST_LETTERS = 60  # of a value in a message


def typed(value: Any, expected: Any, name: str = "") -> Any:
    """A value of an annotated type: objects become dataclasses, lists tuples, texts members of an enumeration.

    Args:
        value: plain values in dicts and lists.
        expected: a class, ``X | Y`` of plain types, ``Mapping[str, X]``, ``Sequence[X]``, ``tuple[X, ...]`` or ``Any``; a
            dataclass stands for its fields.
        name: of the value in the message.

    Raises:
        ValueError: it is of another type, or a dataclass refuses it; the message names the innermost value.

    Example:
        >>> typed({"left": [0.5, "high"]}, Mapping[str, tuple[float, ...]], "losses")
        Traceback (most recent call last):
        ...
        ValueError: losses['left'][1] is 'high', expected float
    """
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _any_of(value, arguments, name)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(value, arguments[-1], name)
    if origin is not None:
        return _sequence(value, origin, arguments[0], name)
    if dataclasses.is_dataclass(expected):
        return _instance(value, expected, name)
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        members = [member.value for member in expected]
        if value not in members:
            raise _type_error(value, " or ".join(map(repr, members)), name)
        return expected(value)
    if not _has_class(value, expected):
        raise _type_error(value, _title(expected), name)
    return value


def _any_of(value: Any, options: Iterable[Any], name: str) -> Any:
    for option in options:
        try:
            return typed(value, option, name)
        except ValueError:
            continue
    raise _type_error(value, " or ".join(map(_title, options)), name)


def _mapping(value: Any, expected: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _type_error(value, "an object", name)
    if _are_plain(value.values(), expected):
        return value
    return {key: typed(item, expected, f"{name}[{_shortened(key)}]") for key, item in value.items()}


def _sequence(value: Any, kind: Any, expected: Any, name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _type_error(value, "a list", name)
    if not _are_plain(value, expected):
        value = [typed(item, expected, f"{name}[{place}]") for place, item in enumerate(value)]
    return tuple(value) if kind is tuple else value


def _instance(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise _type_error(value, "an object", name)
    required, annotations = _fields(kind)
    where = name or "it"
    if unknown := [key for key in value if key not in annotations]:
        raise ValueError(f"{where} has the unknown name {_shortened(unknown[0])}")
    if missing := [field for field in required if field not in value]:
        raise ValueError(f"{where} has no {missing[0]!r}")
    prefix = f"{name}." if name else ""
    return kind(**{field: typed(item, annotations[field], prefix + field) for field, item in value.items()})


@lru_cache(maxsize=64)
def _fields(kind: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names without a default, and the annotations of all."""
    fields, hints = dataclasses.fields(kind), get_type_hints(kind)
    absent = dataclasses.MISSING
    required = tuple(f.name for f in fields if f.default is absent and f.default_factory is absent)
    return required, {field.name: hints[field.name] for field in fields}


def _has_class(value: Any, expected: Any) -> bool:
    if expected is Any or isinstance(expected, str | ForwardRef):  # a reference within a recursive annotation
        return True
    if expected in NUMBERS:
        return type(value) in NUMBERS[expected] and _fits(value)
    return isinstance(value, expected)


def _are_plain(values: Iterable[Any], expected: Any) -> bool:
    """Whether all values are of a plain type, as expected: checked at once, since there are thousands."""
    if expected is Any:
        return True
    if expected not in (str, float, int):
        return False
    found = set(map(type, values))
    return found <= {expected, *NUMBERS.get(expected, ())} and (int not in found or all(map(_fits, values)))


def _fits(value: float) -> bool:
    """Whether a number is a float, or an integer of 64 bits, as arrays have."""
    return type(value) is float or -LARGEST <= value < LARGEST


def _title(expected: Any) -> str:
    return "null" if expected is type(None) else getattr(expected, "__name__", str(expected))


def _type_error(value: Any, expected: str, name: str) -> ValueError:
    return ValueError(f"{name or 'it'} is {_shortened(value)}, expected {expected}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
