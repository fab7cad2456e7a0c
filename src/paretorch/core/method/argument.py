"""The argument ``method`` of public objects: its check, with the cure for what is often given in its place."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from paretorch.core.checks import nearest
from paretorch.core.contract import Method

METHODS = "paretorch.balance"  # resolved by name, because the core imports no method


def check_method(method: Any, owner: str | None = None) -> None:
    """Check that the argument is a balancing method.

    Args:
        method: as it was given.
        owner: the class whose first argument it is and which has an argument ``tasks``; None: there is none.

    Raises:
        ValueError: it is the class or the name of a method, task names, or something else; the message has the call to write.
    """
    if isinstance(method, Method):
        return
    start = f"expected a balancing method such as pt.MGDA(), got {method!r}"
    if isinstance(method, type) and issubclass(method, Method):
        known = getattr(pkgutil.resolve_name(METHODS), method.__name__, None) is method
        raise ValueError(f"{start}, which is a class: write {_call(method, 'pt.' if known else '')}")
    if isinstance(method, str):
        raise ValueError(f"{start}, which is a string: {_named(method)}")
    if owner is not None and (names := _task_names(method)):
        raise ValueError(f"{start}: the first argument is the method; write {owner}(tasks={names!r})")
    raise ValueError(start)


def _call(method: type[Method[Any]], prefix: str) -> str:
    """The constructor as one writes it, with dots for arguments that have no default."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(method) if dataclasses.is_dataclass(method) else ()
    required = any(
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for field in fields
        if field.init
    )
    return f"{prefix}{method.__name__}({'...' if required else ''})"


def _named(text: str) -> str:
    """The cure for a method that is given as text."""
    module: ModuleType = pkgutil.resolve_name(METHODS)
    known = {
        name: found
        for name in module.__all__
        if isinstance(found := getattr(module, name), type) and issubclass(found, Method)
    }
    name, bracket, arguments = text.strip().partition("(")
    exact = {each.lower(): each for each in known}.get(name.strip().lower())
    if exact is not None:
        return f"write pt.{exact}{bracket}{arguments}" if bracket else f"write {_call(known[exact], 'pt.')}"
    return f"it is no method; known are {nearest(name.strip(), known)}"


def _task_names(given: Any) -> tuple[str, ...] | None:
    """The names in a collection of strings; None where it is none."""
    if not isinstance(given, Iterable):
        return None
    names = tuple(given)
    return names if names and all(isinstance(name, str) for name in names) else None
