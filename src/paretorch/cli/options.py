"""Options that a user writes as a constructor's arguments."""

from __future__ import annotations

from typing import Any


def named_options(positional: tuple[Any, ...], named: Any, text: str) -> dict[str, Any]:
    """The arguments by name, plain values; ``text`` is what was written.

    Raises:
        ValueError: one without a name, or a constructor.
    """
    from paretorch.training.names.constructors import Call

    if positional:
        raise ValueError(f"{text!r}: options are given by name, as in 'SGD(lr=0.1)', got {positional[0]!r} without one")
    for name, value in named.items():
        if isinstance(value, Call):
            raise ValueError(f"{text!r}, option {name!r}: expected plain values, got {value.name}(...)")
    return dict(named)
