"""Names that have moved: the former one still works and warns."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


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
