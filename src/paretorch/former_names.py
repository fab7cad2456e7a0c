"""Former public names, which work and warn."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for public names that were renamed.

    Args:
        module: the module's full name.
        names: the present name of each former name; present names are attributes of the module.

    Returns:
        A function of a name: it warns with ``FutureWarning`` and returns the renamed object, or raises ``AttributeError``.
    """

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{names[name]}", FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(module), names[name])

    return lookup
