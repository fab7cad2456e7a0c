"""Workloads by name: a shipped workload, an importable module, or a Python file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import paretorch.workloads
from paretorch.storage.regular_files import file_digest, read_regular
from paretorch.training.names.constructors import check_arguments, parse, unknown
from paretorch.training.names.trusted_files import executed, is_trusted, loaded, trust
from paretorch.workloads.base import Workload

MAX_DATA_BYTES = 1 << 40  # of a data file
NOT_WORKLOADS = ("base", "extras", "forward", "metrics", "streams")  # other files of the folder


def workload_names() -> tuple[str, ...]:
    """The names of the shipped workloads; each is a file in ``paretorch.workloads``."""
    found = pkgutil.iter_modules(paretorch.workloads.__path__)
    return tuple(module.name for module in found if not module.ispkg and module.name not in NOT_WORKLOADS)


def find_workload(name: str, options: Mapping[str, Any]) -> Workload:
    """The workload called ``name`` with the given options.

    The name is that of a shipped workload, an importable module, or a path that ends in ``.py``. The module has a
    top-level object ``workload``, or one subclass of :class:`~paretorch.workloads.Workload`.

    The name must come from the user: its file or module is executed, and the file's digest is stored. See
    :func:`recorded_workload` for a name that was read from a file.

    Raises:
        ValueError: the name is not known, the module has no workload or several, or an option is not one of its fields.
        FileNotFoundError: there is no such file.

    Example:
        >>> find_workload("digits", {"ink": True}).tasks
        ('left', 'right', 'ink')
    """
    return _construct(_module(name), name, options)


def recorded_workload(name: str, options: Mapping[str, Any], where: Path) -> Workload:
    """The workload that a file of a run names; code that the user has not named is not executed.

    It is a shipped workload, or a Python file with the content of a file that the user has named before.

    Args:
        name: as stored in the file.
        options: fields of the workload.
        where: the file, for messages.

    Raises:
        ValueError: it is a module, or a Python file that the user has not named.
        FileNotFoundError: there is no such file.
    """
    if name in workload_names():
        return find_workload(name, options)
    cure = (
        "name it yourself: --workload FILE (in Python: load_front(folder, workload=FILE)), once you know what it does. A file "
        "that you name is executed"
    )
    if not name.endswith(".py"):
        raise ValueError(
            f"{where} names the module {name!r}, which is not imported only because a file names it: {cure}"
        )
    path = Path(name)
    content = _content(path, f", which {where} names. If it is stored elsewhere, {cure}")
    if not is_trusted(content):
        raise ValueError(
            f"{where} names the workload file {name}, with whose content you have not trained before, so it is not "
            f"executed: {cure}"
        )
    return _construct(executed(_module_name(path), path, content), name, options)


def named_workload(given: str, recorded: Mapping[str, Any] | None) -> Workload:
    """The workload that a user names for the models of a run; options that are not given are those of the run.

    Args:
        given: as the command line names it: ``"digits"``, ``"mine.py(width=3)"``.
        recorded: the ``workload`` and the ``options`` of the run, which apply if its workload has the same name; None: no run.

    Raises:
        ValueError, FileNotFoundError: see :func:`find_workload`.
    """
    call = parse(given)
    same = recorded is not None and Path(call.name).name == Path(recorded["workload"]).name
    return find_workload(call.name, call.named or (recorded["options"] if recorded is not None and same else {}))


def _construct(module: ModuleType, name: str, options: Mapping[str, Any]) -> Workload:
    found = _workload_in(module, name)
    if isinstance(found, Workload):
        if not dataclasses.is_dataclass(found):
            if options:
                raise ValueError(
                    f"workload {name}: its object is not a dataclass and takes no options, got {dict(options)}"
                )
            return found
        fields = check_arguments(f"the workload {name}", type(found), (), {**_fields(found), **options})
        return type(found)(**fields)
    return found(**check_arguments(f"the workload {name}", found, (), options))


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}


def workload_class(name: str) -> type[Workload]:
    """The class of a shipped workload, to describe it."""
    found = _workload_in(_module(name), name)
    return found if isinstance(found, type) else type(found)


def _module(name: str) -> ModuleType:
    if name.endswith(".py"):
        return _module_of_file(Path(name))
    if name in workload_names():
        return importlib.import_module(f"paretorch.workloads.{name}")
    if not is_module(name):
        error = unknown("workload", name, workload_names())
        raise ValueError(f"{error}; an importable module or a FILE.py is a workload too")
    return importlib.import_module(name)


def is_module(name: str) -> bool:
    """Whether a name is that of a module which can be imported; parent packages are imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def has_workload(module: ModuleType) -> bool:
    """Whether a module has a workload; see :func:`find_workload`."""
    return isinstance(getattr(module, "workload", None), Workload) or bool(_workload_classes(module))


def _workload_classes(module: ModuleType) -> list[type[Workload]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Workload) and value.__module__ == module.__name__
    ]


def _module_of_file(path: Path) -> ModuleType:
    content = _content(path, ": expected a Python file with a workload in it")
    trust(path, content)
    return executed(_module_name(path), path, content)


def _module_name(path: Path) -> str:
    return f"paretorch_workload_{path.stem}"


def _content(path: Path, why: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist{why}")
    return read_regular(path)


def _workload_in(module: ModuleType, name: str) -> Workload | type[Workload]:
    given = getattr(module, "workload", None)
    if isinstance(given, Workload):
        return given
    classes = _workload_classes(module)
    if len(classes) != 1:
        raise ValueError(
            f"workload {name}: expected a top-level object `workload` or one subclass of paretorch.workloads.Workload, "
            f"got {[cls.__name__ for cls in classes] or 'none'}"
        )
    return classes[0]


def data_digest(name: str, options: Mapping[str, Any]) -> str | None:
    """The SHA-256 of the files in :meth:`Workload.data_files`; None if there are none, or one is missing.

    The name may be read from a file: code that the user has not named is not executed for it, and its data files are unknown.
    """
    try:
        if (module := _named_module(name)) is None:
            return None
        digests = [_present_digest(Path(file)) for file in _construct(module, name, options).data_files()]
    except (ValueError, ImportError, FileNotFoundError):  # the training raises it again
        return None
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest() if digests else None


def _named_module(name: str) -> ModuleType | None:
    """The module of a workload if it is shipped, imported, or a file that the user has named; one that is loaded stays."""
    path = Path(name)
    if not name.endswith(".py"):
        return _module(name) if name in workload_names() or name in sys.modules else None
    content = read_regular(path)
    if not is_trusted(content):
        return None
    found = loaded(_module_name(path), path, content)
    return executed(_module_name(path), path, content) if found is None else found


def _present_digest(path: Path) -> str:
    found = path.stat()
    return _known_digest(path.absolute(), found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=64)
def _known_digest(path: Path, *stamp: int) -> str:
    """The digest of a file, which is read again when its time, size or inode has changed; a study needs it for each run."""
    del stamp
    return file_digest(path, MAX_DATA_BYTES)


def digest(name: str) -> str | None:
    """The SHA-256 of a workload that is a Python file; None for others, whose versions are recorded."""
    path = Path(name)
    return hashlib.sha256(read_regular(path)).hexdigest() if name.endswith(".py") and path.is_file() else None
