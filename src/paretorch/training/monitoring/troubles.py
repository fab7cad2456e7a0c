"""What goes wrong in training, said in one line with the cure: losses that explode or stand still, no GPU.

Waiting for data, which is one of them, has a file of its own, :mod:`paretorch.training.monitoring.loading`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.training.monitoring.loading import Waiting, facts
from paretorch.training.record import checkpoint
from paretorch.training.record.result import Epoch
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord
from paretorch.workloads.streams import Splits, Stream, steps_per_epoch

STILL = 5  # epochs after which a loss that has not fallen is worth a word
LONG = 3600.0  # seconds of a run on the CPU from which on a GPU is worth a word
KEPT = 1_000  # steps, before their losses are looked at
SMALLER = 0.1  # what is suggested, as a factor on the learning rate
FIRST = "No update had been made yet: look at the inputs and targets of that batch, and at the initial weights"
NO_GPU = (
    "No GPU was found: training on the CPU. If it takes too long: a smaller subset (fewer training images), smaller images, "
    "or fewer epochs."
)


class TroubleWarning(UserWarning):
    """Training goes on, and something about it needs a look."""


class ExplodedError(FloatingPointError):
    """A loss exploded: the parameters are no numbers any more, and nothing will mend them."""


class Troubles:
    """Looks at the losses of a run; says each trouble once.

    Args:
        run: what is trained.
        folder: the run's, with its checkpoints.
        streams: what is trained on.

    Example:
        >>> troubles = Troubles(Run("digits"), Path("runs/one"), ())
        >>> troubles.step(3, StepRecord({"left": torch.tensor(math.inf), "right": torch.tensor(1.0)}))
        >>> troubles.first_bad()
        ('left', 3)
    """

    def __init__(self, run: Run, folder: Path, streams: tuple[Stream, ...]) -> None:
        self.run, self.folder = run, folder
        self.steps = steps_per_epoch(streams, run.batch_size) if streams else 1
        self.waiting = Waiting(streams)
        self.said: list[str] = []
        self._bad: dict[str, int] = {}  # by task: the first step whose loss was no number
        self._kept: list[tuple[int, Mapping[str, Tensor]]] = []  # steps that nobody has looked at: looking waits

    def step(self, step: int, record: StepRecord) -> None:
        """Takes in a step, counted from 0 over the whole run; waits for the device once in :data:`KEPT` steps."""
        self._kept.append((step, record.losses))
        if len(self._kept) == KEPT:
            self._look()

    def _look(self) -> None:
        """Looks at the steps that were kept; waits for the device."""
        by_task: dict[str, tuple[list[int], list[Tensor]]] = {}
        for step, losses in self._kept:
            for task, loss in losses.items():
                steps, values = by_task.setdefault(task, ([], []))
                steps.append(step)
                values.append(loss.detach())
        self._kept = []
        for task, (steps, values) in by_task.items():
            finite = torch.stack(values).isfinite()
            if task not in self._bad and not bool(finite.all()):
                self._bad[task] = steps[int((~finite).nonzero()[0])]

    def first_bad(self) -> tuple[str, int] | None:
        """The first task whose loss was no number and its step; of several in one step, the first by name."""
        self._look()
        found = [(step, task) for task, step in self._bad.items()]
        return (min(found)[1], min(found)[0]) if found else None

    def epoch(self, history: Sequence[Epoch], model: nn.Module) -> None:
        """Takes in the end of an epoch, before its checkpoint is written.

        Raises:
            ExplodedError: the model's parameters are no numbers any more. The last checkpoint, which is good, stays.
        """
        if all(map(math.isfinite, history[-1].losses.values())):
            self._kept = []  # a finite mean has no other terms
        bad = self.first_bad()
        if not _finite(model):
            raise ExplodedError(self._exploded(bad))
        if bad is not None:
            cure = f"Look at that batch's labels, or take a smaller step: {self._smaller()}" if bad[1] else FIRST
            self._say(
                f"the loss of {bad[0]!r} was not finite in {self._when(bad[1])}; the parameters are sound. {cure}"
            )
            self._bad = {}
        if len(history) == STILL and (still := _still(history)):
            self._say(
                f"{_named(still)} not fallen in {STILL} epochs. A smaller step may help, or a larger one where the losses barely "
                f"move: {self._smaller()}, {self._rate(1 / SMALLER)}; or more epochs than {self.run.epochs}"
            )
        if len(history) == 1:
            self._slow(sum(history[0].seconds.get(part, 0.0) for part in ("training", "evaluation")))

    def facts(self, splits: Splits) -> Mapping[str, Any]:
        """What the record says: reading, and what was said of other troubles, where there were any."""
        return {**facts(splits, self.waiting), **({"troubles": list(self.said)} if self.said else {})}

    def _slow(self, seconds: float) -> None:
        left = seconds * (self.run.epochs - 1)
        if torch.device(self.run.device).type == "cpu" and left > LONG:
            there = [name for name, here in _gpus().items() if here]
            cure = (
                f"there is a GPU: device={there[0]!r}"
                if there
                else "no GPU was found. A smaller subset of the data, smaller images, or fewer epochs take less"
            )
            self._say(f"the remaining {self.run.epochs - 1} epochs take about {left / 3600:.1f} h on the CPU: {cure}")

    def _exploded(self, bad: tuple[str, int] | None) -> str:
        where = f"the loss of {bad[0]!r} exploded in {self._when(bad[1])}" if bad else "the parameters exploded"
        if bad and not bad[1]:
            return f"the loss of {bad[0]!r} was not finite in {self._when(0)}, and the step made the parameters so. {FIRST}"
        saved = checkpoint.saved(self.folder / "checkpoint")
        good = f"the last good checkpoint is {saved[-1]}" if saved else "there was no checkpoint before it"
        return (
            f"{where}: the model's parameters are no numbers any more; {good}. Take a smaller step: {self._smaller()}"
        )

    def _when(self, step: int) -> str:
        return f"step {step % self.steps + 1} of epoch {step // self.steps + 1}"

    def _smaller(self) -> str:
        clipped = "" if self.run.clip is not None else " or clip=1.0"
        return self._rate(SMALLER) + clipped

    def _rate(self, factor: float) -> str:
        rate = self.run.optimizer_options.get("lr")
        if not isinstance(rate, int | float):
            return f"a learning rate {factor:g} times the present one"
        return f"lr={rate * factor:.3g}"

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.append(text)
            warnings.warn(text, TroubleWarning, stacklevel=4)


def _finite(model: nn.Module) -> bool:
    """Whether every parameter is a number; one transfer from the device."""
    return bool(nn.utils.get_total_norm([p.detach() for p in model.parameters()], math.inf).isfinite())


def _still(history: Sequence[Epoch]) -> list[str]:
    """The tasks whose mean training loss was never below the first epoch's."""
    first = history[0].losses
    later = {task: min(epoch.losses.get(task, math.inf) for epoch in history[1:]) for task in first}
    return [task for task, loss in first.items() if later[task] >= loss]


def _named(tasks: Sequence[str]) -> str:
    if len(tasks) == 1:
        return f"the training loss of {tasks[0]!r} has"
    return f"the training losses of {', '.join(map(repr, tasks[:6]))}{' and others' * (len(tasks) > 6)} have"


def _gpus() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
