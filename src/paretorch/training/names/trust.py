"""Python files that a user has named. Others are not executed: a file of data, such as ``run.json``, never names code.

A file that is named in a command or a call is executed, and its digest is kept in the user's configuration. A file that only
``run.json`` names is executed where its digest is among these, so that a front can be opened where it was trained.
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
_named: set[str] = set()  # digests of files that this process was told: enough where no configuration can be written


def store() -> Path:
    """The file that holds the digests: a line each, with the path of the file in quotes.

    It lies below ``XDG_CONFIG_HOME``, ``~/.config`` by default; on Windows below ``APPDATA``.
    """
    given = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", "")
    # a relative path would lie in the current folder, which may be anybody's
    folder = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return folder / "paretorch" / FILE


def is_trusted(content: bytes) -> bool:
    """Whether the user has named a file of this content before."""
    if _digest(content) in _named:
        return True
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # no home: nothing was named before
        lines = read_regular(store()).decode("utf-8", errors="replace").splitlines()
        return _digest(content) in {line.partition(" ")[0] for line in lines}
    return False


def trust(path: Path, content: bytes) -> None:
    """Keeps the digest of a file that the user has named: in the configuration, if it can be written, else in this process."""
    known = is_trusted(content)
    _named.add(_digest(content))
    if known:
        return
    with contextlib.suppress(OSError, RuntimeError):
        place = store()
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic.appending(place) as file:
            file.write(f"{_digest(content)} {json.dumps(str(path.absolute()))}\n".encode())


def executed(name: str, path: Path, content: bytes) -> ModuleType:
    """A module of exactly this content: no compiled file beside it is taken in its place.

    Args:
        name: of the module, under which :data:`sys.modules` has it.
        path: of the file, for tracebacks.
        content: of the file.
    """
    loader = _Content(name, str(path), content)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Content(importlib.machinery.SourceFileLoader):
    """Compiles a content that was read before; Python's own loader would prefer ``__pycache__``."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self.content = content

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        code: CodeType = self.source_to_code(self.content, self.path)
        return code


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
