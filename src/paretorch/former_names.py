"""Former names of modules, attributes and arguments: each still works and warns."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


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
        warn_renamed(f"{module}.{name}", f"{module}.{names[name]}")
        return getattr(importlib.import_module(module), names[name])

    return lookup


class FormerAttribute:
    """Descriptor of a class: an attribute under its former name, which returns the renamed one with a ``FutureWarning``.

    Args:
        new: the attribute's present name.
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        warn_renamed(f"{owner.__name__}.{self.name}", f"{owner.__name__}.{self.new}")
        return getattr(owner if instance is None else instance, self.new)


def former_arguments(**names: str) -> Callable[[C], C]:
    """Class decorator: the former names of arguments and of the attributes that store them still work and warn.

    Args:
        **names: the present name by the former one.

    Example:
        >>> import warnings
        >>> from dataclasses import dataclass
        >>> @former_arguments(size="length")
        ... @dataclass
        ... class Row:
        ...     length: int
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     Row(size=3).size
        3
        >>> [str(warning.message) for warning in caught]
        ['Row(size=...) is now Row(length=...)', 'Row.size is now Row.length']
    """

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def init_with_former_names(self: Any, *args: Any, **kwargs: Any) -> None:
            for former in names.keys() & kwargs.keys():
                warn_renamed(f"{cls.__name__}({former}=...)", f"{cls.__name__}({names[former]}=...)")
                kwargs[names[former]] = kwargs.pop(former)
            init(self, *args, **kwargs)

        cls.__init__ = init_with_former_names  # type: ignore[misc]
        for former, new in names.items():
            attribute = FormerAttribute(new)
            attribute.__set_name__(cls, former)
            setattr(cls, former, attribute)
        return cls

    return decorate


def warn_renamed(former: str, new: str) -> None:
    """Warn, at the caller's caller, that a name is no longer the present one."""
    warnings.warn(f"{former} is now {new}", FutureWarning, stacklevel=3)
