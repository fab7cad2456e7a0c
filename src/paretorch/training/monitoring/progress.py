"""How a run is followed: a live display on a terminal, plain lines elsewhere, a callback, or silence."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from paretorch.extras import extra
from paretorch.training.record.result import Epoch
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Show = Literal["auto", "live", "plain"] | Callable[[int, int], None] | None


class Progress(Protocol):
    """What the loop tells. Reading a step's losses waits for the device: an implementation does so rarely."""

    def start(self, run: Run, done: int, steps: int) -> None:
        """Training begins after ``done`` epochs; an epoch has ``steps`` steps."""
        ...

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """A step of ``samples`` samples is done in epoch ``epoch``, counted from 1."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done and safe on the disk."""
        ...

    def close(self) -> None:
        """Training is over, or was stopped."""
        ...


class Silence:
    """Shows nothing."""

    def start(self, run: Run, done: int, steps: int) -> None:
        """Training begins."""

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """A step is done."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done."""

    def close(self) -> None:
        """Training is over."""


class Callback(Silence):
    """Calls a function with the epochs done and the epochs in all."""

    def __init__(self, function: Callable[[int, int], None]) -> None:
        self.function = function
        self.epochs = 0

    def start(self, run: Run, done: int, steps: int) -> None:
        """Says where a resumed run stands."""
        del steps
        self.epochs = run.epochs
        self.function(done, self.epochs)

    def epoch(self, epoch: Epoch) -> None:
        """Says that one more is done."""
        self.function(epoch.epoch, self.epochs)


@dataclass
class Lines(Silence):
    """One line per epoch.

    Args:
        file: where the lines go; the standard output where it is None.
    """

    file: TextIO | None = None
    _epochs: int = field(default=0, init=False)

    def start(self, run: Run, done: int, steps: int) -> None:
        """Says what is trained and where it stands."""
        self._epochs = run.epochs
        resumed = f", resumed after epoch {done}" if done else ""
        epochs = f"{run.epochs} epoch{'s' * (run.epochs != 1)}"
        self._say(f"{run.workload}: {epochs} of {steps} step{'s' * (steps != 1)} on {run.device}{resumed}")

    def epoch(self, epoch: Epoch) -> None:
        """Says the epoch's losses, metrics, weights and speed."""
        speed = epoch.samples / max(epoch.seconds["training"], 1e-9)
        parts = [f"epoch {epoch.epoch}/{self._epochs}", _scores(epoch)]
        if epoch.weights:
            parts.append("weights " + numbers(epoch.weights))
        self._say(" | ".join([*parts, f"{speed:,.0f} samples/s"]))

    def _say(self, text: str) -> None:
        print(text, file=self.file or sys.stdout, flush=True)


class Live(Silence):
    """A bar with losses, weights, samples per second and the time left."""

    REFRESH = 0.5  # seconds between two readings of the losses

    def __init__(self) -> None:
        with extra("studies"):
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        self.bar: Bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[speed]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self.seen = 0
        self.shown = self.began = time.perf_counter()

    def start(self, run: Run, done: int, steps: int) -> None:
        """Draws the bar."""
        self.epochs = run.epochs
        self.task = self.bar.add_task(
            f"epoch {done}/{run.epochs}", total=run.epochs * steps, completed=done * steps, speed="", numbers=""
        )
        self.shown = self.began = time.perf_counter()
        self.bar.start()

    def step(self, epoch: int, samples: int, record: StepRecord) -> None:
        """Moves the bar; now and then reads the losses and weights."""
        self.seen += samples
        self.bar.advance(self.task)
        now = time.perf_counter()
        if now - self.shown < self.REFRESH:
            return
        self.shown = now
        losses = {task: float(loss) for task, loss in record.losses.items()}
        shown = "loss " + numbers(losses) if losses else ""
        if record.balance is not None and record.balance.weights is not None:
            weights = record.balance.weights.tolist()
            shown += " | weights " + numbers(dict(zip(record.balance.tasks, weights, strict=True)))
        speed = f"{self.seen / (now - self.began):,.0f} samples/s"
        self.bar.update(self.task, description=f"epoch {epoch}/{self.epochs}", speed=speed, numbers=shown)

    def epoch(self, epoch: Epoch) -> None:
        """Leaves a line about the epoch above the bar."""
        self.bar.console.print(f"epoch {epoch.epoch}/{self.epochs} | {_scores(epoch)}", highlight=False, markup=False)

    def close(self) -> None:
        """Puts the terminal back."""
        self.bar.stop()


class Shown:
    """Closes a display whatever ends the block."""

    def __init__(self, show: Show) -> None:
        self.progress = choose(show)

    def __enter__(self) -> Progress:
        return self.progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()


def choose(show: Show) -> Progress:
    """The display that ``show`` names.

    Args:
        show: ``"live"``; ``"plain"``; ``"auto"``: live on a terminal and plain elsewhere; a function of the epochs
            done and the epochs in all; None for silence.

    Raises:
        ValueError: it is none of these.
    """
    if show is None:
        return Silence()
    if callable(show):
        return Callback(show)
    if show not in ("auto", "live", "plain"):
        raise ValueError(f"progress is 'auto', 'live', 'plain', a function or None, got {show!r}")
    live = sys.stdout.isatty() if show == "auto" else show == "live"
    return Live() if live else Lines()


def _scores(epoch: Epoch) -> str:
    """Training losses, where there are any, and scores on validation data."""
    said = ["loss " + numbers(epoch.losses)] if epoch.losses else []
    return " | ".join([*said, "validation " + numbers(scored(epoch))])


def scored(epoch: Epoch) -> dict[str, float]:
    """The first metric of each task, and the loss of tasks that have none; metrics of no single task, by their names."""
    metrics, losses = epoch.validation.metrics, epoch.validation.losses
    found = {task: next(iter(metrics[task].values())) if metrics.get(task) else loss for task, loss in losses.items()}
    return {name: value for of in metrics if of not in losses for name, value in metrics[of].items()} | found


def numbers(values: Mapping[str, float], most: int = 6) -> str:
    """Numbers by name in one line.

    Example:
        >>> numbers({"left": 0.51234, "ink": 2512.3})
        'left 0.5123 ink 2512'
    """
    shown = [f"{name} {value:.4g}" for name, value in list(values.items())[:most]]
    return " ".join([*shown, f"and {len(values) - most} more"] if len(values) > most else shown)
