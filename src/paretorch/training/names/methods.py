"""Balancing methods by name."""

from __future__ import annotations

from typing import Any

import paretorch.balance
from paretorch.core.contract import Method
from paretorch.training.names.constructors import Call, check_arguments, find_named, parse, subclasses_in, written


def methods() -> dict[str, type[Method[Any]]]:
    """The balancing methods by name."""
    return subclasses_in(paretorch.balance, Method)


def find_method(text: str) -> Method[Any]:
    """The method whose constructor is written in ``text``; the text is parsed, not evaluated.

    Raises:
        ValueError: it is no constructor with plain values, or its name or an option is not known.

    Example:
        >>> find_method("CAGrad(c=0.25)").c
        0.25
        >>> find_method("MDGA()")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'MDGA': did you mean 'MGDA'? Known: ...
    """
    return _method(parse(text))


def canonical_method(text: str) -> str:
    """The constructor with brackets, in which a method's name alone and with empty brackets are one text.

    Raises:
        ValueError: the text is no constructor.

    Example:
        >>> canonical_method("IMTLG"), canonical_method("IMTLG()"), canonical_method("CAGrad( c=0.4 )")
        ('IMTLG()', 'IMTLG()', 'CAGrad(c=0.4)')
    """
    return written(parse(text))


def _method(call: Call) -> Method[Any]:
    made = find_named("method", call.name, methods())
    positional = tuple(_method(value) if isinstance(value, Call) else value for value in call.positional)
    named = {name: _method(value) if isinstance(value, Call) else value for name, value in call.named.items()}
    return made(**check_arguments(f"the method {call.name}", made, positional, named))
