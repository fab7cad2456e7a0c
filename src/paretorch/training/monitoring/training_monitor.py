"""Warnings about losses that diverge or stagnate, tasks without labels, and slow training on the CPU.

Warnings about slow data loading are in :mod:`paretorch.training.monitoring.loading`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from paretorch.former_names import former_names
from paretorch.storage.checkpoint_folder import saved_checkpoints
from paretorch.training.monitoring.loading import LoadingTimer, loading_facts
from paretorch.training.record.result import Epoch, total_seconds
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord
from paretorch.workloads.streams import Splits, Stream, steps_per_epoch

STAGNATION = 5  # epochs after which a loss that has not decreased causes a warning
LONG = 3600.0  # seconds of a run on the CPU that cause a warning
BUFFER = 1_000  # steps, before their losses are checked
SMALLER = 0.1  # the suggested factor on the learning rate
GROWN = 100.0  # a loss this many times that of the start has grown: the steps are too large
FIRST = "No update had been made yet: check the inputs and targets of that batch, and the initial weights"
NO_GPU = (
    "No GPU was found: training on the CPU. If it takes too long: a smaller subset (fewer training images), smaller images, "
    "or fewer epochs."
)


class TrainingWarning(UserWarning):
    """Training continues, and may not give the expected result."""


class NonFiniteParametersError(FloatingPointError):
    """The parameters are not finite, so that further training is useless."""


class TrainingMonitor:
    """Checks the losses and parameters of a run; gives each warning once.

    Args:
        run: what is trained.
        folder: the run's, with its checkpoints.
        streams: the training data.

    Example:
        >>> monitor = TrainingMonitor(Run("digits"), Path("runs/one"), ())
        >>> monitor.step(3, StepRecord({"left": torch.tensor(math.inf), "right": torch.tensor(1.0)}))
        >>> monitor.first_nonfinite()
        ('left', 3)
    """

    def __init__(self, run: Run, folder: Path, streams: tuple[Stream, ...]) -> None:
        self.run, self.folder = run, folder
        self.steps = steps_per_epoch(streams, run.batch_size) if streams else 1
        self.loading = LoadingTimer(streams)
        self.warnings: list[str] = []
        self._nonfinite: dict[str, int] = {}  # by task: the first step whose loss was not finite
        self._ranges: dict[
            str, tuple[float, float]
        ] = {}  # by task: this epoch's first loss and the largest, while finite
        self._buffer: list[tuple[int, Mapping[str, Tensor]]] = []  # not checked yet: a check waits for the device

    def step(self, step: int, record: StepRecord) -> None:
        """Adds a step, counted from 0 over the whole run; waits for the device once in :data:`BUFFER` steps."""
        self._buffer.append((step, record.losses))
        if len(self._buffer) == BUFFER:
            self._check_buffer()

    def _check_buffer(self) -> None:
        """Checks the buffered steps; waits for the device."""
        by_task: dict[str, tuple[list[int], list[Tensor]]] = {}
        for step, losses in self._buffer:
            for task, loss in losses.items():
                steps, values = by_task.setdefault(task, ([], []))
                steps.append(step)
                values.append(loss.detach())
        self._buffer = []
        for task, (steps, values) in by_task.items():
            if task in self._nonfinite:
                continue
            found = torch.stack(values).abs()
            finite = found.isfinite()
            before = len(steps) if bool(finite.all()) else int((~finite).nonzero()[0])
            if before < len(steps):
                self._nonfinite[task] = steps[before]
            if before:
                first, largest = self._ranges.get(task, (float(found[0]), 0.0))
                self._ranges[task] = first, max(largest, float(found[:before].max()))

    def first_nonfinite(self) -> tuple[str, int] | None:
        """The first task whose loss was not finite and its step; of several in one step, the first by name."""
        self._check_buffer()
        found = [(step, task) for task, step in self._nonfinite.items()]
        return (min(found)[1], min(found)[0]) if found else None

    def check_parameters(
        self,
        history: Sequence[Epoch],
        losses: Mapping[str, float],
        model: nn.Module,
        gradient: tuple[int, tuple[str, ...]] | None = None,
    ) -> None:
        """Checks the parameters after the last step of an epoch, before the model is evaluated.

        Args:
            history: the epochs before it.
            losses: the mean losses of the epoch.
            model: after the epoch's last step.
            gradient: the first step of the epoch, from 0, in which a gradient was known to be not finite, and the tasks of these
                gradients; None: of no step this is known.

        Raises:
            NonFiniteParametersError: a parameter of the model is not finite. The last checkpoint, which is finite, is unchanged.
        """
        is_finite = _is_finite(model)
        if is_finite and all(map(math.isfinite, losses.values())):
            self._buffer = []  # a finite mean has finite terms
        if not is_finite:
            begun = len(history) * self.steps
            raise NonFiniteParametersError(
                self._cause(history, None if gradient is None else (begun + gradient[0], gradient[1]))
            )

    def epoch(self, history: Sequence[Epoch], model: nn.Module) -> None:
        """Checks an epoch before its checkpoint is written.

        Raises:
            NonFiniteParametersError: see :meth:`check_parameters`; the workload's evaluation may have changed them.
        """
        self.check_parameters(history[:-1], history[-1].losses, model)
        nonfinite = self.first_nonfinite()
        if nonfinite is not None:
            task, step = nonfinite
            cure = (
                f"Check that batch's inputs and labels, or use a smaller step: {self._smaller_step()}"
                if step
                else FIRST
            )
            self.warn(
                f"the loss of {task!r} was not finite in {self._position(step)}; the parameters are finite. {cure}"
            )
        self._nonfinite, self._ranges = {}, {}
        if len(history) == STAGNATION and (tasks := _stagnating(history)):
            self.warn(
                f"{_losses_have(tasks)} not decreased in {STAGNATION} epochs. A smaller step may help, or a larger one where the "
                f"losses barely change: {self._smaller_step()}, {self._rate(1 / SMALLER)}; or more epochs than {self.run.epochs}"
            )
        if len(history) == 1:
            self._check_labels(history[0], model)
            self._check_time(total_seconds(history[0].seconds))

    def facts(self, splits: Splits) -> Mapping[str, Any]:
        """Facts for the record: data loading, and the warnings, if there were any."""
        return {**loading_facts(splits, self.loading), **({"troubles": list(self.warnings)} if self.warnings else {})}

    def _check_labels(self, first: Epoch, model: nn.Module) -> None:
        heads = getattr(model, "heads", ())
        if missing := [task for task in heads if task not in first.losses]:
            self.warn(
                f"no sample of the first epoch had a label of {', '.join(map(repr, missing))}, so it was not trained: check the "
                "labels in the training data, or omit the task (--tasks)"
            )
        scored = first.validation
        if missing := [task for task in first.losses if task in scored.metrics and task not in scored.losses]:
            self.warn(
                f"no validation sample has a label of {', '.join(map(repr, missing))}, so its validation scores are nan: check "
                "the labels in the validation data, or omit the task (--tasks)"
            )

    def _check_time(self, seconds: float) -> None:
        left = seconds * (self.run.epochs - 1)
        if torch.device(self.run.device).type == "cpu" and left > LONG:
            available = [name for name, is_available in _gpus().items() if is_available]
            cure = (
                f"there is a GPU: device={available[0]!r}"
                if available
                else "no GPU was found. A smaller subset of the data, smaller images, or fewer epochs take less"
            )
            self.warn(f"the remaining {self.run.epochs - 1} epochs take about {left / 3600:.1f} h on the CPU: {cure}")

    def _cause(self, history: Sequence[Epoch], gradient: tuple[int, tuple[str, ...]] | None) -> str:
        """Why the parameters are not finite, as far as the losses and gradients show it, and the cure."""
        nonfinite = self.first_nonfinite()
        state = f"the model's parameters are not finite; {self._last_checkpoint()}"
        if nonfinite and not nonfinite[1]:
            return (
                f"the loss of {nonfinite[0]!r} was not finite in {self._position(0)}, and its step made the parameters not "
                f"finite. {FIRST}"
            )
        if self._has_grown(history):
            exploded = "the parameters exploded"
            if nonfinite:
                exploded = f"the loss of {nonfinite[0]!r} exploded in {self._position(nonfinite[1])}"
            return f"{exploded}: {state}. Use a smaller step: {self._smaller_step()}"
        if gradient is not None and (nonfinite is None or gradient[0] < nonfinite[1]):
            names = ", ".join(map(repr, gradient[1]))
            return (
                f"the gradient of {names} was not finite in {self._position(gradient[0])}, although the loss was: {state}. Check "
                "this loss for a square root, a norm or a logarithm at zero, and the inputs and targets of that batch"
            )
        if nonfinite is None:
            return (
                f"after epoch {len(history) + 1}, in which every loss was finite and none had grown, {state}. Check the inputs "
                f"and targets of its last batch, or use a smaller step: {self._smaller_step()}"
            )
        return (
            f"the loss of {nonfinite[0]!r} was not finite in {self._position(nonfinite[1])}, before which no loss had grown: "
            f"{state}. Check the inputs and targets of that batch and of the one before; if they are finite, use a smaller step: "
            f"{self._smaller_step()}"
        )

    def _has_grown(self, history: Sequence[Epoch]) -> bool:
        """Whether a loss was much larger in this epoch, while it was finite, than in the first epoch or step."""
        self._check_buffer()
        for task, (first, largest) in self._ranges.items():
            before = abs(history[0].losses.get(task, first)) if history else first
            if largest > GROWN * before:
                return True
        return False

    def refused(self, step: int, error: FloatingPointError) -> str:
        """The message where a method, an optimizer or a line search refused a step, counted from 0 over the whole run.

        Args:
            step: its number.
            error: the reason; its first clause names the task.
        """
        reason = str(error).split(";")[0]
        cure = (
            f"Check that batch's inputs and targets, or use a smaller step: {self._smaller_step()}" if step else FIRST
        )
        return f"the run stops in {self._position(step)}: {reason}; {self._last_checkpoint()}. {cure}"

    def _last_checkpoint(self) -> str:
        saved = saved_checkpoints(self.folder / "checkpoint")
        return f"the last finite checkpoint is {saved[-1]}" if saved else "there was no checkpoint before it"

    def _position(self, step: int) -> str:
        return f"step {step % self.steps + 1} of epoch {step // self.steps + 1}"

    def _smaller_step(self) -> str:
        clip = "" if self.run.clip is not None else " or clip=1.0"
        return self._rate(SMALLER) + clip

    def _rate(self, factor: float) -> str:
        rate = self.run.optimizer_options.get("lr")
        if not isinstance(rate, int | float):
            return f"a learning rate {factor:g} times the present one"
        return f"lr={rate * factor:.3g}"

    def warn(self, text: str) -> None:
        """Gives a warning, once, and adds it to the facts of the run."""
        if text not in self.warnings:
            self.warnings.append(text)
            warnings.warn(text, TrainingWarning, stacklevel=5)


def _is_finite(model: nn.Module) -> bool:
    """Whether every parameter is finite; one transfer from the device."""
    return bool(nn.utils.get_total_norm([p.detach() for p in model.parameters()], math.inf).isfinite())


def _stagnating(history: Sequence[Epoch]) -> list[str]:
    """The tasks whose mean training loss was never below that of the first epoch."""
    first = history[0].losses
    later = {task: min(epoch.losses.get(task, math.inf) for epoch in history[1:]) for task in first}
    return [task for task, loss in first.items() if later[task] >= loss]


def _losses_have(tasks: Sequence[str]) -> str:
    if len(tasks) == 1:
        return f"the training loss of {tasks[0]!r} has"
    return f"the training losses of {', '.join(map(repr, tasks[:6]))}{' and others' * (len(tasks) > 6)} have"


def _gpus() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


if not TYPE_CHECKING:
    __getattr__ = former_names(
        __name__, {"ExplodedError": "NonFiniteParametersError", "TroubleWarning": "TrainingWarning"}
    )
