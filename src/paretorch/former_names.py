"""Names that have moved: the former one still works and warns."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module, some of whose public names have been renamed.

    Args:
        module: the module's full name.
        names: the new name of each former one; the new names are attributes of the module.

    Returns:
        A function of a name: the renamed object with a ``FutureWarning``, or ``AttributeError`` for a name that never was.
    """

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{names[name]}", FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(module), names[name])

    return lookup


def former_members(names: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """A decorator of a class, some of whose public attributes, methods or keyword arguments have been renamed.

    Reading a former attribute, passing a former keyword and overriding a former attribute in a subclass work and warn.

    Args:
        names: the new name of each former one.
    """

    def decorate(made: type[T]) -> type[T]:
        def renamed(owner: type, former: str) -> str:
            new = names[former]
            warnings.warn(f"{owner.__name__}.{former} is now {owner.__name__}.{new}", FutureWarning, stacklevel=3)
            return new

        class Former:
            def __init__(self, name: str) -> None:
                self.name = name

            def __get__(self, instance: object, owner: type) -> Any:
                return getattr(owner if instance is None else instance, renamed(owner, self.name))

        def init_subclass(cls: type, **options: Any) -> None:
            super(made, cls).__init_subclass__(**options)  # type: ignore[misc]
            for former in names.keys() & cls.__dict__.keys():
                setattr(cls, renamed(cls, former), cls.__dict__[former])
                delattr(cls, former)

        init = made.__init__

        @functools.wraps(init)
        def with_former_keywords(self: Any, *arguments: Any, **options: Any) -> None:
            named = {renamed(made, key) if key in names else key: value for key, value in options.items()}
            init(self, *arguments, **named)

        made.__init__ = with_former_keywords  # type: ignore[method-assign]
        made.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment, arg-type]
        for former in names:
            setattr(made, former, Former(former))
        return made

    return decorate
