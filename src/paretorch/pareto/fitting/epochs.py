"""The epochs of a front: what was seen of it so far, and the file from which a killed training goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from paretorch.extras import extra
from paretorch.pareto.fitting.plan import Plan, described
from paretorch.pareto.front import FrontSnapshot
from paretorch.storage import atomic
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.regular_files import open_regular
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import Stream

FORMAT = "paretorch front in training 2"
FILE = "training.safetensors"

Seen = tuple[Tensor, list[dict[str, dict[str, float]]]]  # (N, T) losses and the metrics of each member


class Trains(Protocol):
    """What is trained epoch by epoch."""

    gradients: int
    optimizer: torch.optim.Optimizer

    def step(self, number: int, batch: Batch) -> object:
        """The step of that number in the training."""

    def state(self) -> dict[str, Any]:
        """All that decides the steps to come."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""


def train(
    plan: Plan, declared: Mapping[str, str], training: Trains, streams: tuple[Stream, ...], see: Callable[[], Seen]
) -> Looks:
    """All epochs that are left, with a look at the validation data where one is due.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.
        declared: what decides the training's numbers beside its optimizer, in words by argument.
        training: what is trained; its optimizer is as it was made.
        streams: the training data.
        see: looks at the validation data.
    """
    looks = Looks(plan)
    keeper = Keeper(plan.checkpoint, {**declared, "optimizer": described(training.optimizer)})
    if (state := keeper.load()) is not None:
        looks.load(state["looks"])
        training.load(state["training"])
    for epoch in range(looks.epoch, plan.epochs):
        looks.begin()
        for step, batch in plan.batches(streams, epoch):
            training.step(step, batch)
        if looks.due():
            looks.add(training.gradients, *see())
            keeper.save(looks, training)
    return looks


def epochs_kept(folder: str | Path) -> int:
    """How many epochs the training that a folder keeps has done; 0 where it keeps none."""
    path = Path(folder) / FILE
    return int(_opened(path)[0].get("epochs", 0)) if path.exists() else 0


class Looks:
    """What was seen of a front on validation data.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.

    Attributes:
        epoch: epochs done.
        seconds: of training so far.
        losses: (N, T) at the last look.
        metrics: of each member at the last look.
        history: all looks.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch, self.seconds = 0, 0.0
        self.losses = torch.empty(0, dtype=torch.float64)
        self.metrics: list[dict[str, dict[str, float]]] = []
        self.history: list[FrontSnapshot] = []
        self._began = 0.0

    def begin(self) -> None:
        """An epoch begins."""
        self._began = time.perf_counter()

    def due(self) -> bool:
        """An epoch has ended: whether the validation data are looked at."""
        self.seconds += time.perf_counter() - self._began
        self.epoch += 1
        return self.plan.looks(self.epoch)

    def add(self, gradients: int, losses: Tensor, metrics: list[dict[str, dict[str, float]]]) -> None:
        """A look; tells whoever follows the training."""
        self.losses, self.metrics = losses, metrics
        self.history.append(self.plan.moment(self.epoch, gradients, self.seconds, losses))
        if self.plan.progress is not None:
            self.plan.progress(self.history[-1])

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes."""
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "losses": self.losses,
            "metrics": self.metrics,
            "history": [vars(moment) for moment in self.history],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.losses, self.metrics = state["losses"], state["metrics"]
        self.history = [FrontSnapshot(**moment) for moment in state["history"]]


class Keeper:
    """The file of a training that can be killed, or none.

    Args:
        folder: where it lies; None: nothing is kept.
        declared: what decides the training's numbers, in words by argument.
    """

    def __init__(self, folder: str | Path | None, declared: Mapping[str, str]) -> None:
        self.path = None if folder is None else Path(folder) / FILE
        self.declared = dict(declared)
        self.due = CheckpointSchedule(None, guess=0.0)  # the first look is always kept

    def save(self, looks: Looks, training: Trains) -> None:
        """Writes where both are in the place of what was written before, whole or not at all, unless that was just done."""
        if self.path is None or not self.due(looks.epoch):
            return
        with self.due.measured():
            self._write(self.path, looks, training)

    def _write(self, path: Path, looks: Looks, training: Trains) -> None:
        with extra("studies"):
            from safetensors.torch import save as serialize
        values, tensors = pack({"looks": looks.state(), "training": training.state()})
        about = {
            "format": FORMAT,
            "declared": json.dumps(self.declared),
            "epochs": str(looks.epoch),
            "values": json.dumps(values),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, serialize(tensors, metadata=about))

    def load(self) -> dict[str, Any] | None:
        """The state that was written last; None where there is none.

        Raises:
            ValueError: the file is damaged, or of another training.
        """
        if self.path is None or not self.path.exists():
            return None
        about, tensors = _opened(self.path)
        before = json.loads(about["declared"])
        if different := [name for name, now in self.declared.items() if before.get(name) != now]:
            listing = "; ".join(f"{name} was {before.get(name)}, is {self.declared[name]}" for name in different)
            raise ValueError(f"{self.path} belongs to another training: {listing}. Give another folder as checkpoint")
        found: dict[str, Any] = unpack(json.loads(about["values"]), tensors)
        return found


def _opened(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a file says about itself, and its tensors.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    with extra("studies"):
        from safetensors import SafetensorError, safe_open
    with open_regular(path):  # safetensors would wait for a FIFO
        pass
    try:
        with safe_open(path, framework="pt") as opened:
            about = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it to start this training again") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: another version of paretorch wrote it")
    return about, tensors
