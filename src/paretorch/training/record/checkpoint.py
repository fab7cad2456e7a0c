"""The state between two epochs, on disk: whole or not there, checked before anything is loaded, never unpickled.

A checkpoint is a folder ``epoch-N`` of ``model.safetensors``, ``optimizer.safetensors``, ``door.safetensors``,
``random.safetensors`` and ``state.json``, which holds the run, the plain values and each file's size and digest. It is
written beside its place and moved there in one step; then its predecessor is removed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from paretorch.extras import extra
from paretorch.storage import atomic
from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.training.run import Run

FORMAT = "paretorch checkpoint 1"
PARTS = ("model", "optimizer", "door", "random")


class Stateful(Protocol):
    """Something whose state is a dict that it takes back."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Takes the state back."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read into memory.

    Args:
        epoch: epochs done.
        states: the state dict of each part: ``model``, ``optimizer``, ``door``, ``random``.
        folder: where it was read.
    """

    epoch: int
    states: Mapping[str, Any]
    folder: Path

    def load_into(self, model: Stateful, optimizer: Stateful, door: Stateful | None) -> None:
        """Hands the states to the parts of a run, after checking that every tensor fits.

        Raises:
            ValueError: the checkpoint's tensors are not the model's or the door's; nothing was loaded.
        """
        doors = {} if door is None else door.state_dict()
        for part, own in (("model", model.state_dict()), ("door", doors)):
            self._check(part, own)
        model.load_state_dict(self.states["model"])
        optimizer.load_state_dict(self.states["optimizer"])
        if isinstance(optimizer, torch.optim.Optimizer):
            for parameter, state in optimizer.state.items():
                _lay_out(state, parameter)
        if door is not None:
            door.load_state_dict(self.states["door"])

    def _check(self, part: str, own: Mapping[str, Any]) -> None:
        expected, found = _shapes(own), _shapes(self.states[part])
        if expected == found:
            return
        name = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise ValueError(
            f"checkpoint {self.folder} does not fit the {part}: expected {name!r} of shape "
            f"{expected.get(name, 'none')}, got {found.get(name, 'none')}. Was the workload's code changed? "
            f"Train into another folder"
        )


def _lay_out(state: dict[Any, Any], parameter: Tensor) -> None:
    """Puts moments into the memory order of their parameter, which the file does not keep and rounding may depend on."""
    for name, value in state.items():
        if isinstance(value, dict):
            _lay_out(value, parameter)
        elif isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
            state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def save(folder: Path, run: Run, epoch: int, states: Mapping[str, Any], digest: str | None = None) -> None:
    """Writes the checkpoint of ``epoch`` under ``folder`` and removes the ones before.

    Args:
        folder: the run's checkpoint folder.
        run: whose checkpoint it is.
        epoch: epochs done.
        states: the state dict of each of :data:`PARTS`.
        digest: of the run and its workload's file; see :mod:`paretorch.training.record.claims`.

    Raises:
        OSError: the disk is full, or ``folder`` is a link; the checkpoint before this one is still there.
    """
    with extra("studies"):
        from safetensors.torch import save as serialize
    atomic.own_folder(folder)
    writing = folder / ".writing"
    if writing.is_symlink():
        writing.unlink()
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    try:
        values, files = {}, {}
        for part in PARTS:
            values[part], tensors = pack(states[part])
            content = serialize(tensors)
            atomic.write_through(writing / f"{part}.safetensors", content)
            files[f"{part}.safetensors"] = {"bytes": len(content), "sha256": _digest(content)}
        whose = {"run": run.to_json(), "digest": digest}
        state = {"format": FORMAT, "epoch": epoch, **whose, "files": files, "values": values}
        atomic.write_through(writing / "state.json", json.dumps(state).encode())
        atomic.settle(writing)
        target = folder / f"epoch-{epoch}"
        shutil.rmtree(target, ignore_errors=True)
        writing.rename(target)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    atomic.settle(folder)
    for old in saved(folder):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def saved(folder: Path) -> list[Path]:
    """The whole checkpoints under ``folder``, oldest first."""
    found = [
        (int(match[1]), path) for path in folder.glob("epoch-*") if (match := re.fullmatch(r"epoch-(\d+)", path.name))
    ]
    return [path for _, path in sorted(found)]


def load_latest(folder: Path, run: Run, digest: str | None = None) -> Checkpoint | None:
    """The newest checkpoint under ``folder``, or None where there is none.

    Args:
        folder: the run's checkpoint folder.
        run: whose checkpoint it must be.
        digest: that it must have; None: any, as for a run that an earlier version started.

    Raises:
        ValueError: it is damaged, or of another run; the message names the file.
    """
    paths = saved(folder)
    return _load(paths[-1], run, digest) if paths else None


def _load(path: Path, run: Run, digest: str | None) -> Checkpoint:
    with extra("studies"):
        from safetensors.torch import load as deserialize
    state = _read_state(path / "state.json")
    if state["run"] != json.loads(json.dumps(run.to_json())) or digest not in (None, state.get("digest")):
        raise ValueError(f"checkpoint {path} belongs to another run: train into another folder, or remove this one")
    contents = {name: _read_checked(path / name, facts) for name, facts in state["files"].items()}
    tensors = {part: deserialize(contents[f"{part}.safetensors"]) for part in PARTS}
    states = {part: unpack(state["values"][part], tensors[part]) for part in PARTS}
    return Checkpoint(state["epoch"], states, path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(read_regular(path))
    except (FileNotFoundError, ValueError, RecursionError):
        raise _damaged(path, "it cannot be read as JSON") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise _damaged(path, f"expected the format {FORMAT!r}")
    if missing := {"epoch", "run", "files", "values"} - set(state):
        raise _damaged(path, f"it has no {sorted(missing)}")
    if absent := {f"{part}.safetensors" for part in PARTS} - set(state["files"]):
        raise _damaged(path, f"it does not list {sorted(absent)}")
    return state


def _read_checked(path: Path, facts: Mapping[str, Any]) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    if len(content) != facts["bytes"]:
        raise _damaged(path, f"expected {facts['bytes']} bytes, got {len(content)}")
    if _digest(content) != facts["sha256"]:
        raise _damaged(path, "its content is not what was written")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged: {reason}. Remove the folder {path.parent} to start this run again")
