"""Safetensors files: tensors by name and a header of plain text. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from paretorch.extras import extra
from paretorch.storage import atomic
from paretorch.storage.regular_files import open_regular


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file: the same bytes for the same tensors and metadata."""
    with extra("studies"):
        from safetensors.torch import save
    content = save(dict(tensors), metadata=None if metadata is None else dict(metadata))
    return content if metadata is None or len(metadata) < 2 else _with_sorted_metadata(content)


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in the order of their names: safetensors writes them in an order of the process."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def deserialize(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is damaged; the message is the reason.
    """
    with extra("studies"):
        from safetensors import SafetensorError
        from safetensors.torch import load
    try:
        return load(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a number format that torch does not have
        raise ValueError(str(error)) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Writes a safetensors file as a complete file or not at all; returns its SHA-256.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    content = serialize(tensors, metadata)
    atomic.write(path, content)
    return digest(content)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file.

    Raises:
        ValueError: it is damaged; the message is the reason, without the path.
        OSError: it is missing, or no regular file.
    """
    with extra("studies"):
        from safetensors import SafetensorError, safe_open
    with open_regular(path):  # safetensors would block on a FIFO
        pass
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from None


def host_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the host: the format refuses tensors that share memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def shapes(state: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by name."""
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}


def first_difference(expected: Mapping[str, object], found: Mapping[str, object]) -> str | None:
    """The first name whose values differ; None if there is none."""
    return next((name for name in [*expected, *found] if expected.get(name) != found.get(name)), None)


def digest(content: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
