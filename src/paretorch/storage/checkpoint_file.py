"""A checkpoint in one file, written by trainings of fronts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.seals import SEAL
from paretorch.storage.tensor_files import read_tensors, write_tensors

FORMAT = "paretorch front in training 3"
UNSEALED = "paretorch front in training 2"  # of earlier versions: without a digest
FILE = "training.safetensors"


class CheckpointFile:
    """The checkpoint of one training: a safetensors file with plain values in its header.

    Args:
        folder: where the file is stored; made if necessary.
        declared: the arguments that decide the numbers of the training, as text by name.
    """

    def __init__(self, folder: str | Path, declared: Mapping[str, str]) -> None:
        self.path = Path(folder) / FILE
        self.declared = dict(declared)

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Replaces the file by the state after ``epoch`` epochs, completely or not at all."""
        values, tensors = pack(state)
        header = {
            "format": FORMAT,
            "declared": json.dumps(self.declared),
            "epochs": str(epoch),
            "values": json.dumps(values),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(self.path, tensors, header | {SEAL: _digest(header, tensors)})

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is no file.

        Raises:
            ValueError: the file is damaged, or belongs to another training.
        """
        if not self.path.exists():
            return None
        header, tensors = _read(self.path)
        before = json.loads(header["declared"])
        if different := [name for name, now in self.declared.items() if before.get(name) != now]:
            listing = "; ".join(f"{name} was {before.get(name)}, is {self.declared[name]}" for name in different)
            raise ValueError(f"{self.path} belongs to another training: {listing}. Give another folder as checkpoint")
        state: dict[str, Any] = unpack(json.loads(header["values"]), tensors)
        return state


def saved_epochs(folder: str | Path) -> int:
    """The number of epochs after which the checkpoint in a folder was written; 0 without a checkpoint."""
    path = Path(folder) / FILE
    return int(_read(path)[0].get("epochs", 0)) if path.exists() else 0


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        header, tensors = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it to start this training again") from None
    written = header.pop(SEAL, None)
    if header.get("format") == FORMAT and written != _digest(header, tensors):
        raise ValueError(
            f"{path} is damaged: its content differs from what was written. Remove it to start this training again"
        )
    if header.get("format") not in (FORMAT, UNSEALED):
        raise ValueError(f"{path} is not of the format {FORMAT!r}: another version wrote it. Remove it to start again")
    return header, tensors


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of the header and of the name, dtype, shape and bytes of each tensor."""
    result = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        result.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        result.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
