"""Which files of a folder a front or an export wrote: these are replaced, others are not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from paretorch.extras import extra
from paretorch.storage.regular_files import IrregularFileError, open_regular, read_regular

MARK = "paretorch"  # in the metadata of what is written
MEMBER = re.compile(r"model-\d{3,}\.safetensors")
HEADER = 100_000_000  # bytes of a header, as safetensors bounds it
EXPORTED = {"tasks", "preference"}  # in the metadata of exported weights


def metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors; empty where it is no such file.

    Raises:
        OSError: it is missing or no regular file.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER:
            return {}
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else {}


def check_front(folder: Path, form: str) -> None:
    """Checks that a front may be written into a folder: all files of its names are those of a front.

    Models are known by a mark in their metadata, or by the digest that ``front.json`` has of them.

    Args:
        folder: may be missing.
        form: of the mark.

    Raises:
        ValueError: a file of a front's names is no front's; nothing was changed.
    """
    digests = _listed(folder / "front.json")
    for path in sorted(folder.glob("model-*.safetensors")) if folder.is_dir() else []:
        if MEMBER.fullmatch(path.name) and not _is_member(path, form, digests):
            raise ValueError(
                f"{path} is not a model of a front, so it is not replaced: move it away, or name another folder (--out)"
            )


def _listed(path: Path) -> Collection[str]:
    """The digests of the models that a front's ``front.json`` has; none where there is no such file."""
    if not os.path.lexists(path):
        return ()
    values: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        values = json.loads(read_regular(path))
    if not isinstance(values, dict) or not str(values.get("format", "")).startswith("paretorch front "):
        raise ValueError(
            f"{path} is not of a front, so it is not replaced: move it away, or name another folder (--out)"
        )
    digests = values.get("sha256")
    return [str(digest) for digest in digests] if isinstance(digests, list) else ()


def _is_member(path: Path, form: str, digests: Collection[str]) -> bool:
    try:
        if metadata(path).get(MARK) == form:
            return True
        if not digests:
            return False
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() in digests
    except OSError:
        return False


def check_export(path: Path) -> None:
    """Checks that a model may be exported to a path: nothing is there, or what an earlier export wrote.

    Raises:
        ValueError: another file is there, such as a front's own model; nothing was changed.
    """
    if not os.path.lexists(path):
        return
    try:
        ours = _is_export(path)
    except (IrregularFileError, FileNotFoundError):
        ours = False
    if not ours:
        raise ValueError(
            f"{path} is there and is no exported model, so it is not replaced: give another name, or remove it first"
        )


def _is_export(path: Path) -> bool:
    if path.suffix == ".safetensors":
        found = metadata(path)
        return set(found) >= EXPORTED and MARK not in found
    with open_regular(path):  # refuses what would block
        pass
    with extra("export"):
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        return False
    return any(each.key == MARK for each in model.metadata_props)
