"""Problems with known fronts: a regression with adjustable conflict, and six functions of a point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.metrics import MeanAbsoluteError, Metric
from paretorch.workloads.base import MultiTaskModel, Truth, Workload, check_fits
from paretorch.workloads.generated.analytic_problems import PROBLEMS, AnalyticProblem
from paretorch.workloads.streams import Splits, Stream, TensorStream

REGRESSION = "regression"
NAMES = (REGRESSION, *PROBLEMS)
CURVE = 2001  # points of the regression's front


class ObjectiveError(MeanAbsoluteError):
    """The mean absolute value of the objective."""

    name = "distance from zero"


@dataclass(frozen=True)
class Synthetic(Workload):
    r"""A problem with known front, reference and largest hypervolume.

    ``"regression"``: two targets y_t = <a_t, x>, of one variance, through a bottleneck of a single feature; the angle
    between a_1 and a_2 is ``conflict``. The smallest losses of such a network are those of the best approximation of rank one,
    which predicts y_1 and y_2 from their projection on one direction:

    .. math:: (\sin^2 \varphi,\; \sin^2 (\kappa - \varphi)), \qquad 0 \le \varphi \le \kappa

    with kappa the angle. The other problems are functions of a point, which is the encoder's parameter; the heads have none. A
    box constraint is satisfied by a reflection at its edges, where no slope vanishes: x = 1 - abs((u mod 2) - 1).

    Args:
        problem: ``"regression"``, ``"vlmop2"``, ``"zdt1"``, ``"zdt2"``, ``"zdt3"``, ``"dtlz2"`` or ``"two_valley"``.
        conflict: of the regression, in degrees, above 0 (equal targets) and below 90 (independent targets).
        size: n, dimension of the point or of the regression's inputs; 0: the problem's default, 20 for the regression.
        hidden: units of the regression's hidden layer; 0: a linear encoder.
        samples: number of training samples of the regression.
        noise: standard deviation of the regression's targets around <a_t, x>; adds its square to both losses.
        data_seed: of the regression's data, independently of a run's seed.

    Example:
        >>> round(Synthetic("vlmop2").truth.hypervolume, 4), Synthetic("dtlz2").tasks
        (0.3421, ('f1', 'f2', 'f3'))
    """

    title = "known fronts: a regression with adjustable conflict, VLMOP2, ZDT1-3, DTLZ2, the two valleys"

    problem: str = REGRESSION
    conflict: float = 60.0
    size: int = 0
    hidden: int = 32
    samples: int = 512
    noise: float = 0.0
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.problem not in NAMES:
            raise ValueError(f"synthetic: problem is one of {', '.join(NAMES)}, got {self.problem!r}")
        if not 0 < self.conflict < 90:
            raise ValueError(f"synthetic: conflict is an angle above 0 and below 90 degrees, got {self.conflict}")
        least = 2 if self._objectives is None else self._objectives.least
        if (self.size and self.size < least) or (self.problem == "two_valley" and self.size not in (0, 2)):
            raise ValueError(f"synthetic: {self.problem} does not have {self.size} dimensions; the least is {least}")
        few = self._objectives is None and self.samples <= self._size
        if self.hidden < 0 or few or not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(
                f"synthetic: hidden and noise are at least 0, samples more than size ({self._size}); got hidden={self.hidden}, "
                f"noise={self.noise}, samples={self.samples}"
            )
        check_fits("synthetic", 1 if self._objectives else self.samples, 8 * (self._size + 2), "size or samples")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``f1`` and ``f2``, and ``f3`` of DTLZ2."""
        return tuple(f"f{t + 1}" for t in range(2 if self._objectives is None else self._objectives.tasks))

    @property
    def box(self) -> tuple[float, float] | None:
        """Bounds of every coordinate of the Pareto-optimal points; None for the regression, whose model is a network."""
        return None if self._objectives is None else self._objectives.box

    @property
    def _objectives(self) -> AnalyticProblem | None:
        return PROBLEMS.get(self.problem)

    @property
    def _size(self) -> int:
        return self.size or (20 if self._objectives is None else self._objectives.size)

    def data(self) -> Splits:
        """One stream of (B, n) inputs and (B,) targets; for a point, a single input that is not used."""
        if self._objectives is not None:
            one: tuple[Stream, ...] = (TensorStream(torch.zeros(1, 1), {task: torch.zeros(1) for task in self.tasks}),)
            return Splits(one, one, one)
        train, validation, test = (
            (_regression(self._size, self.samples, self.conflict, self.noise, self.data_seed + index),)
            for index in range(3)
        )
        return Splits(train, validation, test)

    def model(self) -> nn.Module:
        """A point, or an encoder to one feature with a linear head per task."""
        if self._objectives is not None:
            heads: dict[str, nn.Module] = {task: Objective(self.problem, t) for t, task in enumerate(self.tasks)}
            return MultiTaskModel(Point(self._objectives.start(self._size), self._objectives.boxed), heads)
        if self.hidden:
            encoder = nn.Sequential(nn.Linear(self._size, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))
        else:
            encoder = nn.Sequential(nn.Linear(self._size, 1))
        return MultiTaskModel(encoder, {task: nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)) for task in self.tasks})

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Mean squared errors of the regression; the values of the objectives at a point."""
        if self._objectives is not None:
            return {task: output.mean() for task, output in outputs.items()}
        return {task: (output - targets[task]).square().mean() for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """The mean absolute error; for a point, the mean absolute value."""
        made = MeanAbsoluteError if self._objectives is None else ObjectiveError
        return {task: (made(),) for task in self.tasks}

    @property
    def truth(self) -> Truth | None:
        """The front; for the regression, that of the expected losses."""
        return _truth(self.problem, self._size, self.conflict, self.noise)


class Point(nn.Module):
    """An encoder whose output is one point (B, n) for any inputs (B, ...).

    Args:
        start: (n,) initial parameter.
        boxed: whether the point is in [0, 1]^n.
    """

    def __init__(self, start: Tensor, boxed: bool) -> None:
        super().__init__()
        self.point = nn.Parameter(start)
        self.boxed = boxed

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, n) the point."""
        inside = 1 - (torch.remainder(self.point, 2) - 1).abs() if self.boxed else self.point
        return inside.expand(len(inputs), -1)


class Objective(nn.Module):
    """One objective of a problem: points (B, n) -> values (B,).

    Args:
        problem: a key of ``PROBLEMS``.
        index: of the objective.
    """

    def __init__(self, problem: str, index: int) -> None:
        super().__init__()
        self.problem, self.index = problem, index

    def forward(self, features: Tensor) -> Tensor:
        """(B,) values."""
        return PROBLEMS[self.problem].losses(features)[..., self.index]


def _regression(size: int, count: int, conflict: float, noise: float, seed: int) -> TensorStream:
    """Inputs of zero mean whose second moments are exactly the identity, and noise that is orthogonal to them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, size + 2, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(drawn - drawn.mean(dim=0))
    white = basis * math.sqrt(count)
    inputs, errors = white[:, :size], noise * white[:, size:]
    angle = math.radians(conflict)
    first = inputs[:, 0]
    second = math.cos(angle) * inputs[:, 0] + math.sin(angle) * inputs[:, 1]
    targets = {"f1": (first + errors[:, 0]).float(), "f2": (second + errors[:, 1]).float()}
    return TensorStream(inputs.float(), targets)


@lru_cache(maxsize=16)
def _truth(problem: str, size: int, conflict: float, noise: float) -> Truth | None:
    if problem in PROBLEMS:
        return PROBLEMS[problem].truth(size)
    angle = math.radians(conflict)
    phi = torch.linspace(0, angle, CURVE, dtype=torch.float64)
    front = torch.stack([phi.sin().square(), (angle - phi).sin().square()], dim=1) + noise**2
    reference = 1 + noise**2
    gaps = front[:, 0].diff()
    between = (front[1:, 1] + front[:-1, 1]) / 2
    volume = float((gaps * (reference - between)).sum() + (reference - front[-1, 0]) * (reference - front[-1, 1]))
    return Truth(front, (reference, reference), volume)
