"""A checkpoint in one file, written by trainings of fronts and by searches of static weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.storage import atomic
from paretorch.storage.damage import DamagedFileError, naming_damaged
from paretorch.storage.json_files import parse_json
from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.seals import SEAL
from paretorch.storage.tensor_files import read_tensors, write_tensors
from paretorch.storage.value_types import typed

FORMAT = "paretorch front in training 3"
UNSEALED = "paretorch front in training 2"  # of earlier versions: without a digest
FILE = "training.safetensors"
RESTART = "Remove it to start this training again"


class CheckpointFile:
    """The checkpoint of one training: a safetensors file with plain values in its header.

    Args:
        folder: where the file is stored; made if necessary.
        declared: the arguments that decide the numbers of the training, as text by name.
    """

    def __init__(self, folder: str | Path, declared: Mapping[str, str]) -> None:
        self.path = Path(folder) / FILE
        self.declared = dict(declared)

    def save(self, epoch: int, state: Mapping[str, Any], chosen: Mapping[str, str] | None = None) -> None:
        """Replaces the file by the state after ``epoch`` epochs, completely or not at all.

        Args:
            epoch: epochs done.
            state: nested plain values and tensors.
            chosen: of declared arguments that leave a choice, the choice by name: :meth:`load` accepts it as the argument.
        """
        values, tensors = pack(state)
        header = {
            "format": FORMAT,
            "declared": json.dumps(self.declared),
            "chosen": json.dumps(dict(chosen or {})),
            "epochs": str(epoch),
            "values": json.dumps(values),
        }
        atomic.make_folder(self.path.parent)
        write_tensors(self.path, tensors, header | {SEAL: _digest(header, tensors)})

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is no file.

        Raises:
            ValueError: the file is damaged, or belongs to another training.
        """
        if not self.path.exists():
            return None
        header, tensors = _read(self.path)
        with naming_damaged(self.path, RESTART):
            before, chosen = (
                typed(parse_json(header.get(name, "{}")), Mapping[str, str], name) for name in ("declared", "chosen")
            )
        self.declared |= {name: before[name] for name in before if chosen.get(name) == self.declared.get(name, "")}
        if different := [name for name, now in self.declared.items() if before.get(name) != now]:
            listing = "; ".join(f"{name} was {before.get(name)}, is {self.declared[name]}" for name in different)
            raise ValueError(f"{self.path} belongs to another training: {listing}. Remove it, or give another folder")
        with naming_damaged(self.path, RESTART):
            state: dict[str, Any] = dict(unpack(parse_json(header["values"], allow_nan=True), tensors))
        return state


def saved_epochs(folder: str | Path) -> int:
    """The number of epochs after which the checkpoint in a folder was written; 0 without a checkpoint."""
    path = Path(folder) / FILE
    with naming_damaged(path, RESTART):
        return int(_read(path)[0].get("epochs", 0)) if path.exists() else 0


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        header, tensors = read_tensors(path)
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: {error}. {RESTART}") from None
    written = header.pop(SEAL, None)
    if (header.get("format") == FORMAT or written is not None) and written != _digest(header, tensors):
        raise DamagedFileError(f"{path} is damaged: its content differs from what was written. {RESTART}")
    if header.get("format") not in (FORMAT, UNSEALED):
        raise DamagedFileError(
            f"{path} is not of the format {FORMAT!r}: another version wrote it. Remove it to start again"
        )
    return header, tensors


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of the header and of the name, dtype, shape and bytes of each tensor."""
    result = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        result.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        result.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
