"""Studies by name, by Python file, or by the workload on which methods are compared."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from paretorch.storage.regular_files import read_regular
from paretorch.studies import catalog
from paretorch.studies.study import Study
from paretorch.studies.workload_study import workload_study
from paretorch.training.names.constructors import check_arguments, parse, unknown
from paretorch.training.names.trusted_files import executed
from paretorch.training.names.workloads import has_workload, is_module, workload_names
from paretorch.training.run import Run


def study_names() -> list[str]:
    """Names of the shipped studies.

    Example:
        >>> "quickstart" in study_names()
        True
    """
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(catalog.__path__))


def find_study(name_or_file: str | Path, scale: str, options: Mapping[str, Any] | None = None) -> Study:
    """The study that the function ``study(scale)`` of a shipped study or of a file returns, or that of a workload.

    In order: the name of a shipped study; a file with a function ``study``; a workload, as a name, a module or a file, with its
    options in parentheses: then it is the study of methods on it, see
    :func:`~paretorch.studies.workload_study.workload_study`.

    In the study of a file, relative paths of workloads (``FILE.py``) and of their data (the option ``root``) are relative to
    that file if they exist there, else to the current folder.

    Args:
        name_or_file: one of :func:`study_names`, a path that ends in ``.py``, or a workload.
        scale: the function's argument: ``"smoke"``, ``"small"`` or ``"paper"``.
        options: further arguments of the function, by name; and ``reference``, the label of the treatment to which all others
            are compared, for every study.

    Raises:
        ValueError: no such study, an option that the function does not have, or a function that is missing, raises, or returns
            another type.

    Example:
        >>> find_study("quickstart", "smoke").reference
        'static weights, tuned'
        >>> find_study("digits", "smoke", {"methods": "sum, IMTLG()"}).reference
        'sum'
    """
    name, given = str(name_or_file), dict(options or {})
    function: Callable[..., Study] | None
    if _is_workload(name):
        check_arguments(f"the study of the workload {name}", workload_study, (name, scale), given)
        return workload_study(name, scale, **given)
    function = getattr(study_module(name), "study", None)
    if not callable(function):
        raise ValueError(
            f"{name}: a study file has a function study(scale) that returns a Study; it has none, and no workload whose methods "
            "could be compared"
        )
    reference = None if "reference" in inspect.signature(function).parameters else given.pop("reference", None)
    check_arguments(f"the study {name}", function, (scale,), given)
    try:
        study = function(scale, **given)
    except Exception as error:
        raise ValueError(f"{name}: study({scale!r}) raised {type(error).__name__}: {error}") from error
    if not isinstance(study, Study):
        raise ValueError(f"{name}: study({scale!r}) returns a paretorch Study, got {type(study).__name__}")
    if name.endswith(".py"):
        study = _relative_to(study, Path(name).parent)
    return study if reference is None else replace(study, reference=reference)


def next_steps(name: str) -> str:
    """What to do after a shipped study: the text ``AFTER`` of its module; empty without one.

    Example:
        >>> "paretorch diagnose" in next_steps("quickstart")
        True
    """
    return str(getattr(study_module(name), "AFTER", "")) if name in study_names() else ""


def _is_workload(name: str) -> bool:
    """Whether a name is that of a workload, and not of a study."""
    if name in study_names():
        return False
    if name.endswith(".py"):
        return not hasattr(module := study_module(name), "study") and has_workload(module)
    called = parse(name).name
    return called != name or called in workload_names() or is_module(called)


def _relative_to(study: Study, folder: Path) -> Study:
    """The study with paths of workloads and data relative to a folder, where they exist."""

    def path(text: Any) -> Any:
        inside = isinstance(text, str) and text and not Path(text).is_absolute() and (folder / text).exists()
        return str(folder / text) if inside else text

    def placed(run: Run) -> Run:
        workload = path(run.workload) if run.workload.endswith(".py") else run.workload
        root = {"root": path(run.options["root"])} if "root" in run.options else {}
        return replace(run, workload=workload, options={**run.options, **root})

    treatments = tuple(replace(each, runs=tuple(map(placed, each.runs))) for each in study.treatments)
    return replace(study, treatments=treatments)


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
            f"{unknown('study', name_or_file, study_names())}. A study of your own is a path that ends in .py; with "
            f"--methods, it may be a workload: {', '.join(workload_names())}, a module or FILE.py"
        )
    return importlib.import_module(f"{catalog.__name__}.{name_or_file.replace('-', '_')}")
