"""Studies by name or by Python file."""

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


def study_names() -> list[str]:
    """Names of the shipped studies.

    Example:
        >>> "quickstart" in study_names()
        True
    """
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(catalog.__path__))


def find_study(name_or_file: str | Path, scale: str, options: Mapping[str, Any] | None = None) -> Study:
    """The study that the function ``study(scale)`` of a shipped study or of a file returns.

    Args:
        name_or_file: one of :func:`study_names`, or a path that ends in ``.py``.
        scale: the function's argument: ``"smoke"``, ``"small"`` or ``"paper"``.
        options: further arguments of the function, by name.

    Raises:
        ValueError: no such study, an option that the function does not have, or a function that is missing, raises, or returns
            another type.

    Example:
        >>> find_study("quickstart", "smoke").reference
        'static weights, tuned'
    """
    module = study_module(str(name_or_file))
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


def study_module(name_or_file: str) -> ModuleType:
    """The module of a study; see :func:`find_study`."""
    if name_or_file.endswith(".py"):
        path = Path(name_or_file)
        if not path.is_file():
            raise ValueError(f"no study file at {name_or_file}")
        try:
            return executed(f"paretorch_study_{path.stem}", path, read_regular(path))
        except Exception as error:
            raise ValueError(f"{name_or_file}: importing it raised {type(error).__name__}: {error}") from error
    if name_or_file not in study_names():
        raise ValueError(
            f"{unknown('study', name_or_file, study_names())}. A study of your own is a path that ends in .py"
        )
    return importlib.import_module(f"{catalog.__name__}.{name_or_file.replace('-', '_')}")
