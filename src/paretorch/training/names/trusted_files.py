"""Python files that a user has named, and that may therefore be executed.

A file that is named in a command or a call is executed, and its digest is stored in the user's configuration. A file that only
``run.json`` names is executed if its digest is stored there, so that a front can be opened on the machine that trained it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import CodeType, ModuleType

from paretorch.storage import atomic
from paretorch.storage.regular_files import read_regular

FILE = "trusted-workloads.txt"
# Digests of the files that were named in this process, for a configuration that cannot be written.
_named: set[str] = set()


def store() -> Path:
    """The file of the digests: one per line, with the path of the file in quotes.

    It is stored below ``XDG_CONFIG_HOME``, ``~/.config`` by default; on Windows below ``APPDATA``.
    """
    given = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", "")
    # a relative path would be in the current folder, which may belong to another user
    folder = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return folder / "paretorch" / FILE


def is_trusted(content: bytes) -> bool:
    """Whether the user has named a file with this content."""
    if _digest(content) in _named:
        return True
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # without a home folder nothing is stored
        lines = read_regular(store()).decode("utf-8", errors="replace").splitlines()
        return _digest(content) in {line.partition(" ")[0] for line in lines}
    return False


def trust(path: Path, content: bytes) -> None:
    """Stores the digest of a file that the user has named: in the configuration if it can be written, else in this process."""
    known = is_trusted(content)
    _named.add(_digest(content))
    if known:
        return
    with contextlib.suppress(OSError, RuntimeError):
        stored = store()
        stored.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic.open_to_append(stored) as file:
            file.write(f"{_digest(content)} {json.dumps(str(path.absolute()))}\n".encode())


def executed(name: str, path: Path, content: bytes) -> ModuleType:
    """A module with exactly this content: a compiled file in ``__pycache__`` is not used.

    Args:
        name: of the module in :data:`sys.modules`.
        path: of the file, for tracebacks.
        content: of the file.
    """
    loader = _ContentLoader(name, str(path), content)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses read it when they are defined
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def loaded(name: str, path: Path, content: bytes) -> ModuleType | None:
    """The module that :func:`executed` has made of this content; None if there is none, or a later one has its name."""
    module = sys.modules.get(name)
    loader = None if module is None or module.__spec__ is None else module.__spec__.loader
    is_same = isinstance(loader, _ContentLoader) and (loader.path, loader.content) == (str(path), content)
    return module if is_same else None


class _ContentLoader(importlib.machinery.SourceFileLoader):
    """Compiles the given content; Python's own loader would prefer ``__pycache__``."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self.content = content

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        code: CodeType = self.source_to_code(self.content, self.path)
        return code


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
