"""A checkpoint in a folder of several files, written by runs of one model.

A checkpoint is a folder ``epoch-N`` of ``model.safetensors``, ``optimizer.safetensors``, ``door.safetensors`` (the Fork or
Balancer), ``random.safetensors`` and ``state.json``, which holds the run, the plain values, the size and digest of each file, and
a digest of itself. It is written to a temporary folder and renamed in one step; then all but the previous checkpoint are removed.
Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from paretorch.storage import atomic
from paretorch.storage.damage import WRONG, DamagedFileError
from paretorch.storage.json_files import read_json
from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.regular_files import read_sized
from paretorch.storage.seals import check_seal, sealed
from paretorch.storage.tensor_files import deserialize, digest, first_difference, serialize, shapes

FORMAT = "paretorch checkpoint 2"
UNSEALED = "paretorch checkpoint 1"  # of earlier versions: without a digest of state.json
MOST_EPOCHS = 1 << 62
PARTS = ("model", "optimizer", "door", "random")


class Stateful(Protocol):
    """An object with a state dict."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores a state."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Args:
        epoch: epochs done.
        states: the state dict of each part: ``model``, ``optimizer``, ``door``, ``random``.
        folder: where it is stored.
        damaged: why newer checkpoints were not loaded.
    """

    epoch: int
    states: Mapping[str, Any]
    folder: Path
    damaged: tuple[str, ...] = ()

    def load_model(self, model: Stateful) -> None:
        """Restores the state of the model alone, after checking that all tensors have the right shapes.

        Raises:
            ValueError: the tensors do not fit the model; nothing was loaded.
        """
        self._check("model", model.state_dict())
        model.load_state_dict(self.states["model"])

    def load_into(self, model: Stateful, optimizer: Stateful, balancer: Stateful | None) -> None:
        """Restores the state of a run, after checking that all tensors have the right shapes.

        Raises:
            ValueError: the tensors do not fit the model, the Fork or the Balancer; nothing was loaded.
        """
        self._check("model", model.state_dict())
        self._check("door", {} if balancer is None else balancer.state_dict())
        model.load_state_dict(self.states["model"])
        optimizer.load_state_dict(self.states["optimizer"])
        if isinstance(optimizer, torch.optim.Optimizer):
            for parameter, state in optimizer.state.items():
                _match_strides(state, parameter)
        if balancer is not None:
            balancer.load_state_dict(self.states["door"])

    def _check(self, part: str, state: Mapping[str, Any]) -> None:
        expected, found = shapes(state), shapes(self.states[part])
        if part == "door":  # rows of n numbers, of which n is not known before the first step
            expected = {
                name: found[name] if _is_row_shape(shape, found.get(name)) else shape
                for name, shape in expected.items()
            }
        if (name := first_difference(expected, found)) is not None:
            owner = "Fork or Balancer" if part == "door" else part
            raise ValueError(
                f"checkpoint {self.folder} does not fit the {owner}: expected {name!r} of shape "
                f"{expected.get(name, 'none')}, got {found.get(name, 'none')}. Was the workload's code changed? "
                f"Train into another folder"
            )


def _is_row_shape(empty: tuple[int, ...], found: tuple[int, ...] | None) -> bool:
    """Whether tensors without numbers become those of the other shape, as ``load_state_dict`` of Fork and Balancer makes them."""
    return found is not None and empty[1:] == (0,) and len(found) == 2 and found[0] == empty[0]


def _match_strides(state: dict[Any, Any], parameter: Tensor) -> None:
    """Gives moments the strides of their parameter, which files do not store and on which rounding may depend."""
    for name, value in state.items():
        if isinstance(value, dict):
            _match_strides(value, parameter)
        elif isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
            state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def save(
    folder: Path,
    epoch: int,
    states: Mapping[str, Any],
    run: Mapping[str, Any],
    run_digest: str | None,
    previous: bool = False,
) -> None:
    """Writes the checkpoint of ``epoch`` and removes others.

    Args:
        folder: of a run's checkpoints.
        epoch: epochs done.
        states: the state dict of each of :data:`PARTS`.
        run: the run as a JSON object.
        run_digest: of the run and its workload's file; None for a run of an earlier version.
        previous: whether the checkpoint before this one is kept, which a training continues from where this one is damaged.

    Raises:
        OSError: the disk is full, or ``folder`` is a link; the previous checkpoint is unchanged.
        MovedFolderError: the run's folder was moved, removed or replaced; nothing at its path was changed.
    """
    atomic.own_folder(folder)
    writing = folder / ".writing"
    if writing.is_symlink():
        writing.unlink()
    atomic.remove_folder(writing)
    writing.mkdir()
    try:
        values, files = {}, {}
        for part in PARTS:
            values[part], tensors = pack(states[part])
            content = serialize(tensors)
            atomic.write_through(writing / f"{part}.safetensors", content)
            files[f"{part}.safetensors"] = {"bytes": len(content), "sha256": digest(content)}
        owner = {"run": run, "digest": run_digest}
        state = sealed({"format": FORMAT, "epoch": epoch, **owner, "files": files, "values": values})
        atomic.write_through(writing / "state.json", json.dumps(state).encode())
        atomic.sync_folder(writing)
        target = folder / f"epoch-{epoch}"
        atomic.remove_folder(target)
        writing.rename(target)
    except BaseException:
        with contextlib.suppress(OSError):  # a folder that is no longer this process's own is left as it is
            atomic.remove_folder(writing)
        raise
    atomic.sync_folder(folder)
    remove_others(folder, epoch, previous)


def remove_others(folder: Path, epoch: int, previous: bool = False) -> None:
    """Removes all checkpoints but that of ``epoch`` and, with ``previous``, the one before it; none if that one is missing."""
    saved = saved_checkpoints(folder)
    if folder / f"epoch-{epoch}" not in saved:
        return
    number = saved.index(folder / f"epoch-{epoch}")
    kept = saved[max(number - previous, 0) : number + 1]
    for other in saved:
        if other not in kept:
            atomic.remove_folder(other)


def saved_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in ``folder``, oldest first.

    Raises:
        OSError: the folder cannot be read, so that it is not known whether there are any.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [(int(match[1]), name) for name in names if (match := re.fullmatch(r"epoch-(\d+)", name))]
    return [folder / name for _, name in sorted(found)]


def load_latest(
    folder: Path, owners: Sequence[tuple[Mapping[str, Any], str | None]], previous: bool = False
) -> Checkpoint | None:
    """The newest checkpoint in ``folder``; None if there is none.

    Args:
        folder: of a run's checkpoints.
        owners: the runs, as JSON objects, to which it may belong, with their digests; None: any digest, for a run of an
            earlier version of the package.
        previous: whether the newest undamaged one is loaded where a newer one is damaged.

    Raises:
        ValueError: the checkpoint is damaged, or belongs to another run; the message names the file.
    """
    reasons: list[str] = []
    first: DamagedError | None = None
    for path in reversed(saved_checkpoints(folder)):
        try:
            return replace(_load(path, owners), damaged=tuple(reasons))
        except DamagedError as error:
            first = first or error
            if not previous:
                break
            reasons.append(f"{error.path} is damaged: {error.reason}")
    if first is not None:
        raise first
    return None


class DamagedError(DamagedFileError):
    """A file of a checkpoint differs from what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} is damaged: {reason}. Remove the folder {path.parent} to start this run again")


def _load(path: Path, owners: Sequence[tuple[Mapping[str, Any], str | None]]) -> Checkpoint:
    state = _read_state(path / "state.json")
    if not any(
        state["run"] == json.loads(json.dumps(run)) and digest in (None, state.get("digest")) for run, digest in owners
    ):
        raise ValueError(f"checkpoint {path} belongs to another run: train into another folder, or remove this one")
    if path.name != f"epoch-{state['epoch']}":
        raise DamagedError(path / "state.json", f"it is of epoch {state['epoch']}")
    contents = {f"{part}.safetensors": _read_checked(path, f"{part}.safetensors", state["files"]) for part in PARTS}
    try:
        tensors = {part: deserialize(contents[f"{part}.safetensors"]) for part in PARTS}
        states = {part: unpack(state["values"][part], tensors[part]) for part in PARTS}
    except WRONG as error:
        raise DamagedError(path / "state.json", f"its values do not fit the tensors ({error})") from None
    return Checkpoint(state["epoch"], states, path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = read_json(path, allow_nan=True)  # a state may have an infinite number
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DamagedError(path, "it cannot be read as JSON") from None
    if not isinstance(state, dict) or state.get("format") not in (FORMAT, UNSEALED):
        raise DamagedError(path, f"expected the format {FORMAT!r}")
    try:
        check_seal(state, required=state["format"] == FORMAT)
    except ValueError as error:
        raise DamagedError(path, str(error)) from None
    if missing := {"epoch", "run", "files", "values"} - set(state):
        raise DamagedError(path, f"it has no {sorted(missing)}")
    if type(state["epoch"]) is not int or not 0 < state["epoch"] < MOST_EPOCHS:
        raise DamagedError(path, "its epoch is no number of epochs")
    if not isinstance(state["files"], dict) or not isinstance(state["values"], dict):
        raise DamagedError(path, "its files and values are no JSON objects")
    files = {f"{part}.safetensors" for part in PARTS}
    if different := files ^ set(state["files"]):
        raise DamagedError(path, f"it does not list exactly {sorted(files)}: {sorted(different)} differs")
    return state


def _read_checked(folder: Path, name: str, files: Mapping[str, Any]) -> bytes:
    path, facts = folder / name, files[name]
    if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
        raise DamagedError(folder / "state.json", f"it has no digest of {name}")
    try:
        content = read_sized(path, facts["bytes"])
    except FileNotFoundError:
        raise DamagedError(path, "it is missing") from None
    except ValueError as error:
        raise DamagedError(path, str(error)) from None
    if digest(content) != facts["sha256"]:
        raise DamagedError(path, "its content differs from what was written")
    return content
