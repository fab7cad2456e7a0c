"""Checks that files to be replaced were written by a front or an export."""

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
from paretorch.storage.json_files import read_json
from paretorch.storage.regular_files import IrregularFileError, open_regular

MARK = "paretorch"  # the key of the format in the metadata of a file
MEMBER = re.compile(r"model-\d{3,}\.safetensors")
MAX_HEADER = 100_000_000  # bytes, the limit of safetensors
EXPORTED = ({"tasks", "preference"}, {"tasks", "workload"})  # keys in the metadata of exported weights


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for another file.

    Raises:
        OSError: it is missing or no regular file.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            return {}
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else {}


def check_front(folder: Path, form: str) -> None:
    """Checks that a front may be written to a folder: all files with names of a front's files belong to a front.

    Models are recognized by the format in their metadata, or by their digest in ``front.json``.

    Args:
        folder: may be missing.
        form: the format of a front's models.

    Raises:
        ValueError: a file with such a name does not belong to a front; nothing was changed.
    """
    digests = _listed_digests(folder / "front.json")
    for path in sorted(folder.glob("model-*.safetensors")) if folder.is_dir() else []:
        if MEMBER.fullmatch(path.name) and not _is_member(path, form, digests):
            raise ValueError(
                f"{path} is not a model of a front, so it is not replaced: move it away, or name another folder (--out)"
            )


def _listed_digests(path: Path) -> Collection[str]:
    """The digests of the models in ``front.json``; none if there is no such file."""
    if not os.path.lexists(path):
        return ()
    values: Any = None
    with contextlib.suppress(OSError, ValueError):
        values = read_json(path)
    if not isinstance(values, dict) or not str(values.get("format", "")).startswith("paretorch front "):
        raise ValueError(
            f"{path} does not belong to a front, so it is not replaced: move it away, or name another folder (--out)"
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
    """Checks that a model may be exported to a path: there is no file, or one that an earlier export wrote.

    Raises:
        ValueError: there is another file, such as a model of a front; nothing was changed.
    """
    if not os.path.lexists(path):
        return
    try:
        replaceable = _is_export(path)
    except (IrregularFileError, FileNotFoundError):
        replaceable = False
    if not replaceable:
        raise ValueError(
            f"{path} exists and is no exported model, so it is not replaced: give another name, or remove it first"
        )


def _is_export(path: Path) -> bool:
    if path.suffix == ".safetensors":
        found = metadata(path)
        return any(set(found) >= keys for keys in EXPORTED) and MARK not in found
    with open_regular(path):  # refuses files that would block
        pass
    with extra("export"):
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        return False
    return any(each.key == MARK for each in model.metadata_props)
