"""Progress displays of a run: bars on a terminal, plain lines elsewhere, a callback, or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TextIO

from paretorch.display import ProgressBars
from paretorch.training.record.result import Epoch
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord

ProgressOption = Literal["auto", "live", "plain"] | Callable[[int, int], None] | None


class ProgressDisplay(Protocol):
    """What the training calls. Reading a step's losses waits for the device: an implementation does so rarely."""

    def start(self, run: Run, done: int, steps: int) -> None:
        """Training starts after ``done`` epochs; an epoch has ``steps`` steps."""

    def note(self, text: str) -> None:
        """A remark about the run, after its start."""

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """A step of ``samples`` samples is done in epoch ``epoch``, counted from 1."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done and stored on the disk."""

    def close(self) -> None:
        """Training has ended, or was stopped."""


class NoProgress:
    """Displays nothing."""

    def start(self, run: Run, done: int, steps: int) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """Does nothing."""

    def epoch(self, epoch: Epoch) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class CallbackProgress(NoProgress):
    """Calls a function with the number of epochs done and the number of all epochs."""

    def __init__(self, function: Callable[[int, int], None]) -> None:
        self.function = function
        self.epochs = 0

    def start(self, run: Run, done: int, steps: int) -> None:
        """Calls the function before the first epoch, also where a run is resumed."""
        del steps
        self.epochs = run.epochs
        self.function(done, self.epochs)

    def epoch(self, epoch: Epoch) -> None:
        """Calls the function after an epoch."""
        self.function(epoch.epoch, self.epochs)


@dataclass
class PlainProgress(NoProgress):
    """Prints one line per epoch.

    Args:
        file: where lines are printed; None: the standard output.
    """

    file: TextIO | None = None
    _epochs: int = field(default=0, init=False)

    def start(self, run: Run, done: int, steps: int) -> None:
        """Prints the workload, the number of epochs and steps, and the device."""
        self._epochs = run.epochs
        resumed = f", resumed after epoch {done}" if done else ""
        epochs = f"{run.epochs} epoch{'s' * (run.epochs != 1)}"
        self._print(f"{run.workload}: {epochs} of {steps} step{'s' * (steps != 1)} on {run.device}{resumed}")

    def note(self, text: str) -> None:
        """Prints the remark."""
        self._print(f"Note: {text}")

    def epoch(self, epoch: Epoch) -> None:
        """Prints losses, metrics, weights and speed of an epoch."""
        speed = epoch.samples / max(epoch.seconds["training"], 1e-9)
        parts = [f"epoch {epoch.epoch}/{self._epochs}", _format_epoch(epoch)]
        if epoch.weights:
            parts.append("weights " + format_numbers(epoch.weights))
        self._print(" | ".join([*parts, f"{speed:,.0f} samples/s"]))

    def _print(self, text: str) -> None:
        print(text, file=self.file or sys.stdout, flush=True)


class LiveProgress(NoProgress):
    """Draws a bar with losses, weights, samples per second and the time left."""

    REFRESH = 0.5  # seconds between two readings of the losses

    def __init__(self) -> None:
        self.bars: ProgressBars | None = None
        self.samples = 0
        self.refreshed = self.started = time.perf_counter()

    def start(self, run: Run, done: int, steps: int) -> None:
        """Draws the bar."""
        self.epochs = run.epochs
        self.bars = ProgressBars("speed", "time left", "numbers", width=20)
        self.bars.add("run", f"epoch {done}/{run.epochs}", total=run.epochs * steps, completed=done * steps)
        self.refreshed = self.started = time.perf_counter()

    def note(self, text: str) -> None:
        """Prints the remark above the bar."""
        assert self.bars is not None
        self.bars.print(f"Note: {text}")

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """Moves the bar; reads losses and weights every :data:`REFRESH` seconds."""
        assert self.bars is not None
        self.samples += samples
        self.bars.advance("run")
        now = time.perf_counter()
        if now - self.refreshed < self.REFRESH:
            return
        self.refreshed = now
        losses = {task: float(loss) for task, loss in record.losses.items()}
        shown = "loss " + format_numbers(losses) if losses else ""
        if record.balance is not None and record.balance.weights is not None:
            weights = record.balance.weights.tolist()
            shown += " | weights " + format_numbers(dict(zip(record.balance.tasks, weights, strict=True)))
        speed = f"{self.samples / (now - self.started):,.0f} samples/s"
        self.bars.update("run", description=f"epoch {epoch}/{self.epochs}", speed=speed, numbers=shown)

    def epoch(self, epoch: Epoch) -> None:
        """Prints a line about the epoch above the bar."""
        assert self.bars is not None
        self.bars.print(f"epoch {epoch.epoch}/{self.epochs} | {_format_epoch(epoch)}")

    def close(self) -> None:
        """Restores the terminal."""
        if self.bars is not None:
            self.bars.close()


def progress_display(option: ProgressOption) -> ProgressDisplay:
    """The display that an option names.

    Args:
        option: ``"live"``; ``"plain"``; ``"auto"``: live on a terminal and plain elsewhere; a function of the number of epochs
            done and the number of all epochs; None: no display.

    Raises:
        ValueError: the option is none of these.
    """
    if option is None:
        return NoProgress()
    if callable(option):
        return CallbackProgress(option)
    if option not in ("auto", "live", "plain"):
        raise ValueError(f"progress is 'auto', 'live', 'plain', a function or None, got {option!r}")
    live = sys.stdout.isatty() if option == "auto" else option == "live"
    return LiveProgress() if live else PlainProgress()


def _format_epoch(epoch: Epoch) -> str:
    """Training losses, where there are any, and validation scores."""
    losses = ["loss " + format_numbers(epoch.losses)] if epoch.losses else []
    return " | ".join([*losses, "validation " + format_numbers(headline_scores(epoch))])


def headline_scores(epoch: Epoch) -> dict[str, float]:
    """The first validation metric of each task, or its loss if it has no metric; metrics of no single task by their names."""
    metrics, losses = epoch.validation.metrics, epoch.validation.losses
    by_task = {task: next(iter(metrics[task].values())) if metrics.get(task) else loss for task, loss in losses.items()}
    return {name: value for group in metrics if group not in losses for name, value in metrics[group].items()} | by_task


def format_numbers(values: Mapping[str, float], most: int = 6) -> str:
    """Numbers by name in one line, at most ``most`` of them.

    Example:
        >>> format_numbers({"left": 0.51234, "ink": 2512.3})
        'left 0.5123 ink 2512'
    """
    shown = [f"{name} {value:.4g}" for name, value in list(values.items())[:most]]
    return " ".join([*shown, f"and {len(values) - most} more"] if len(values) > most else shown)
