"""Where a study comes from: a shipped name, or a Python file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from paretorch.storage.regular_files import read_regular
from paretorch.studies import catalog
from paretorch.studies.study import Study
from paretorch.training.names.constructors import check_arguments, unknown
from paretorch.training.names.trusted_files import executed


def names() -> list[str]:
    """Names of the shipped studies.

    Example:
        >>> "quickstart" in names()
        True
    """
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(catalog.__path__))


def find(name_or_file: str | Path, scale: str, options: Mapping[str, Any] | None = None) -> Study:
    """The study of that name, or that a file's function ``study(scale)`` returns.

    Args:
        name_or_file: one of :func:`names`, or a path that ends in ``.py``.
        scale: handed to the function: ``"smoke"``, ``"small"`` or ``"paper"``.
        options: further arguments of the function, by name.

    Raises:
        ValueError: no such study, an option that it does not take, or a function that is missing, fails or returns something
            else.

    Example:
        >>> find("quickstart", "smoke").reference
        'static weights, tuned'
    """
    module = _module(str(name_or_file))
    function: Callable[..., Study] | None = getattr(module, "study", None)
    if not callable(function):
        raise ValueError(f"{name_or_file}: a study file has a function study(scale) that returns a Study; it has none")
    given = dict(options or {})
    check_arguments(f"the study {name_or_file}", function, (scale,), given)
    try:
        study = function(scale, **given)
    except Exception as error:
        raise ValueError(f"{name_or_file}: study({scale!r}) raised {type(error).__name__}: {error}") from error
    if not isinstance(study, Study):
        raise ValueError(f"{name_or_file}: study({scale!r}) returns a paretorch Study, got {type(study).__name__}")
    return study


def _module(name: str) -> ModuleType:
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ValueError(f"no study file at {name}")
        path = Path(name)
        try:
            return executed(f"paretorch_study_{path.stem}", path, read_regular(path))
        except Exception as error:
            raise ValueError(f"{name}: importing it raised {type(error).__name__}: {error}") from error
    if name not in names():
        raise ValueError(f"{unknown('study', name, names())}. A study of your own is a path that ends in .py")
    return importlib.import_module(f"{catalog.__name__}.{name.replace('-', '_')}")
