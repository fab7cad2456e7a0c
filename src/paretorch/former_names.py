"""Former names of public modules, objects, attributes and arguments: each still works and warns."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

UNTIL = "the former name works until Paretorch 0.3"

# Former modules from which the documentation imported, and where their content is now.
MODULES = {
    "paretorch.core.conflict": "paretorch.core.solvers.conflict_averse",
    "paretorch.core.bargaining": "paretorch.core.solvers.bargaining",
    "paretorch.core.evidence": "paretorch.core.gradients.task_gradients",
    "paretorch.core.fork_at": "paretorch.core.fork.insertion",
    "paretorch.core.weights": "paretorch.core.method.weights",
    "paretorch.linesearch.rules": "paretorch.linesearch.armijo.rules",
    "paretorch.pareto.epo": "paretorch.pareto.algorithms.epo",
    "paretorch.pareto.linear_program": "paretorch.pareto.algorithms.linear_program",
    "paretorch.pareto.mt2o": "paretorch.pareto.algorithms.mt2o",
    "paretorch.training.spec": "paretorch.training.run",
    "paretorch.training.result": "paretorch.training.record.result",
    "paretorch.workloads.passes": "paretorch.workloads.forward",
}


def warn_renamed(former: str, new: str) -> None:
    """Warn, at the caller's caller, that a name has been replaced."""
    warnings.warn(f"{former} is now {new}; {UNTIL}", FutureWarning, stacklevel=3)


# --- objects of a module -------------------------------------------------------------------------------------------------


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module, some of whose public names have been renamed.

    Args:
        module: the module's full name.
        names: the new name of each former one; the new names are attributes of the module.

    Returns:
        A function of a name: the renamed object with a ``FutureWarning``; ``AttributeError`` for any other name.
    """

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", f"{module}.{names[name]}")
        return getattr(importlib.import_module(module), names[name])

    return lookup


# --- attributes and arguments of a class ---------------------------------------------------------------------------------


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


def former_members(**names: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: former names of attributes, of methods and of arguments of the constructor work and warn.

    Reading a former attribute, passing a former keyword, and overriding a former attribute in a subclass are supported.

    Args:
        **names: the present name by the former one.

    Example:
        >>> import warnings
        >>> from dataclasses import dataclass
        >>> @former_members(size="length")
        ... @dataclass
        ... class Row:
        ...     length: int
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     Row(size=3).size
        3
        >>> [str(warning.message).partition(";")[0] for warning in caught]
        ['Row(size=...) is now Row(length=...)', 'Row.size is now Row.length']
    """

    def decorate(made: type[T]) -> type[T]:
        init = made.__init__

        @functools.wraps(init)
        def init_with_former_names(self: Any, *args: Any, **kwargs: Any) -> None:
            for former in names.keys() & kwargs.keys():
                warn_renamed(f"{made.__name__}({former}=...)", f"{made.__name__}({names[former]}=...)")
                kwargs[names[former]] = kwargs.pop(former)
            init(self, *args, **kwargs)

        def init_subclass(cls: type, **kwargs: Any) -> None:
            super(made, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
            for former in names.keys() & cls.__dict__.keys():
                warn_renamed(f"{cls.__name__}.{former}", f"{cls.__name__}.{names[former]}")
                setattr(cls, names[former], cls.__dict__[former])
                delattr(cls, former)

        made.__init__ = init_with_former_names  # type: ignore[method-assign]
        made.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment, arg-type]
        for former, new in names.items():
            attribute = FormerAttribute(new)
            attribute.__set_name__(made, former)
            setattr(made, former, attribute)
        return made

    return decorate


# --- modules -------------------------------------------------------------------------------------------------------------


class FormerModules:
    """Finds the modules of :data:`MODULES` for the import system, after all other finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a former module, or None for any other."""
        return ModuleSpec(name, self) if name in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: the import system creates an ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill a former module with the names of the one that replaces it."""
        new = MODULES[module.__name__]
        warn_renamed(module.__name__, new)
        content = vars(importlib.import_module(new))
        module.__dict__.update({name: value for name, value in content.items() if not name.startswith("__")})


def find_former_modules() -> None:
    """Register :class:`FormerModules`, once."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
