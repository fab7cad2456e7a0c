"""When a search measures the displacement of the features: on the batch, on a subsample, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.linesearch.fast import attempt, jacobian_products
from paretorch.linesearch.fast.displacement_reuse import ENOUGH, DisplacementReuse

TASKS = ("a", "b")


SHARES = st.one_of(st.floats(-1, 2), st.just(math.nan))

GOOD, POOR, HARD = (
    (0.85, 0.4),
    (0.75, 0.4),
    (0.1, 0.4),
)  # least shares of the slope, and of the slope along the projection


def measurements(shares: list[tuple[float, float]]) -> str:
    """For each step with these shares, whether the displacement is measured (``m``) or not (``-``)."""
    reuse, found = DisplacementReuse(), ""
    for share, projected in shares:
        found += "-" if reuse.can_reuse else "m"
        reuse = reuse.reused() if reuse.can_reuse else reuse.measured(share, projected)
    return found


def test_reuse_omits_two_of_three_measurements_after_a_run_of_five() -> None:
    assert measurements([GOOD] * 14) == "mmmmm--m--m--m"
    assert measurements([POOR] * 14) == "m" * 14  # .75 of the slope is predictable, and too little for reuse
    assert measurements([(0.85, 0.2)] * 14) == "m" * 14  # too little of the slope along the projection
    assert measurements([(math.nan, 0.4)] * 14) == "m" * 14
    assert measurements([GOOD] * 7 + [HARD] + [GOOD] * 9) == "mmmmm--mmmmmm--m-"  # a new run
    assert measurements([GOOD] * 4 + [POOR] + [GOOD] * 7) == "mmmmmmmmmm--"


@pytest.mark.parametrize(
    ("shares", "level"),
    [
        ([GOOD] * 4, 4),
        ([GOOD] * 30, 20),
        ([POOR] * 6, 6),
        ([GOOD] * 20 + [HARD], 15),
        ([HARD] * 9, 0),
        ([GOOD, HARD], 0),
    ],
)
def test_reuse_expects_a_predictable_step_after_five_of_them(shares: list[tuple[float, float]], level: int) -> None:
    reuse = DisplacementReuse()
    for share, projected in shares:
        reuse = reuse.measured(share, projected)
    assert reuse.level == level
    assert reuse.below_expectation(0.69) == (level >= 5)
    assert reuse.below_expectation(math.nan) == (level >= 5)
    assert not reuse.below_expectation(0.7)


@settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)  # not the time
@given(st.lists(st.tuples(SHARES, SHARES), max_size=60))
def test_reuse_never_omits_three_measurements_in_a_row_nor_the_first_five(shares: list[tuple[float, float]]) -> None:
    found = measurements(shares)
    assert "---" not in found
    assert "-" not in found[:5]
    if not any(share >= 0.8 and projected >= 0.3 for share, projected in shares):
        assert "-" not in found


def test_reuse_level_decays_with_unpredictable_steps() -> None:
    reuse = DisplacementReuse()
    for _ in range(30):
        reuse = reuse.measured(1.0)
    levels = []
    while reuse.below_expectation(0.0):
        levels.append(reuse.level)
        reuse = reuse.measured(0.0)
    assert levels == [20, 15, 11, 8, 6]


class BatchCounter(nn.Module):
    """Counts the calls of an encoder, and those with the whole batch."""

    def __init__(self, inner: nn.Module, batch: int) -> None:
        super().__init__()
        self.inner, self.batch, self.calls, self.whole = inner, batch, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.whole += len(x) == self.batch
        out: Tensor = self.inner(x)
        return out


def squares(z: Tensor, curvature: float = 1.0) -> dict[str, Tensor]:
    return {"a": curvature * (z - 1).square().mean(), "b": 2 * curvature * (z[:, :2] - 1.1).square().mean()}


def independent_samples(max_step: float = 0.5) -> tuple[BatchCounter, pt.FastBacktracking, Tensor]:
    """An encoder for which a subsample is not reliable."""
    torch.manual_seed(0)
    encoder = BatchCounter(nn.Embedding(64, 4).double(), 64)
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), max_step)
    search.fast = search.fast._replace(encoder=search.fast.encoder._replace(subsample_reliable=False))
    return encoder, search, torch.arange(64)


def test_search_measures_the_batch_in_one_of_three_predictable_steps() -> None:
    encoder, search, x = independent_samples()
    calls = []
    for _ in range(14):
        before = encoder.calls
        assert search.step(x, squares).accepted
        calls.append(encoder.calls - before)
    assert calls[1:] == [2, 2, 2, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2]


def test_projected_displacement_has_the_slope_of_the_balanced_loss() -> None:
    encoder, search, x = independent_samples()
    for _ in range(5):
        search.step(x, squares)
    assert search.fast.reuse.can_reuse
    before = {task: float(loss) for task, loss in squares(encoder(x).detach()).items()}
    step = search.step(x, squares)
    assert step.balance is not None
    assert step.balance.weights is not None
    after = {task: float(loss) for task, loss in squares(encoder(x).detach()).items()}
    weights = dict(zip(TASKS, map(float, step.balance.weights), strict=True))
    true = sum(weights[task] * (before[task] - after[task]) for task in TASKS) / step.step
    predicted = sum(weights[task] * step.slopes[task] for task in TASKS)
    assert true == pytest.approx(predicted, rel=0.05)  # up to the curvature of a short step


def test_search_measures_a_step_below_expectation() -> None:
    encoder, search, x = independent_samples(max_step=4.0)
    for _ in range(5):
        search.step(x, squares)
    assert search.fast.reuse.can_reuse
    before = encoder.calls
    step = search.step(x, lambda z: squares(z, curvature=12.0))
    assert encoder.calls - before >= 2
    assert step.accepted
    after = squares(encoder(x).detach(), curvature=12.0)
    assert all(float(after[task]) < float(step.losses[task]) for task in TASKS)
    assert not search.fast.reuse.can_reuse


def test_step_out_of_the_domain_of_a_loss_is_not_predictable() -> None:
    encoder, search, x = independent_samples()
    for _ in range(5):
        search.step(x, squares)
    first = encoder(x).detach()

    def walled(z: Tensor) -> dict[str, Tensor]:
        distance = (z - first).abs().max()
        return {task: loss + 0 * (1e-6 - distance).log() for task, loss in squares(z).items()}

    step = search.step(x, walled)
    assert step.accepted
    assert float((encoder(x).detach() - first).abs().max()) < 1e-6


def test_reuse_is_resumed() -> None:
    encoder, search, x = independent_samples()
    for _ in range(6):
        search.step(x, squares)
    again = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.5)
    again.load_state_dict(search.state_dict())
    assert again.fast.reuse == search.fast.reuse == DisplacementReuse(5, 5, 1)


@pytest.mark.parametrize("options", [{"samples": None}, {"displacement": "linearised"}, {"direction": "adam"}])
def test_search_always_measures_with_these_options(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    encoder = BatchCounter(nn.Embedding(64, 4).double(), 64)
    if "direction" in options:
        options = {"direction": torch.optim.Adam(encoder.parameters(), lr=0.01)}
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.01, **options)
    for _ in range(12):
        before = encoder.calls
        search.step(torch.arange(64), squares)
        assert encoder.calls - before >= 2


def test_search_measures_the_batch_where_a_subsample_is_below_expectation() -> None:
    torch.manual_seed(0)
    encoder = BatchCounter(nn.Linear(6, 4).double(), 64)
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.05)
    x = torch.randn(1, 6, dtype=torch.float64) + 0.1 * torch.randn(64, 6, dtype=torch.float64)
    for _ in range(ENOUGH + 3):
        search.step(x, squares)
    assert search.fast.encoder.subsample_reliable
    assert search.fast.reuse.level >= ENOUGH
    before = encoder.whole
    search.step(x, squares)
    assert encoder.whole - before == 1
    before = encoder.whole
    step = search.step(x, lambda z: squares(z, curvature=8.0))
    assert step.accepted
    assert encoder.whole - before >= 2


def different_tasks(
    seed: int,
) -> tuple[pt.FastBacktracking, Callable[[], tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]]]:
    """A normalised network, six tasks of random labels in units one to six, and its batches."""
    torch.manual_seed(seed)
    layers = [part for k in range(4) for part in (nn.Linear(16 if k else 6, 16), nn.BatchNorm1d(16), nn.ReLU())]
    encoder = nn.Sequential(*layers).double()
    heads = nn.ModuleDict({str(task): nn.Linear(16, 3) for task in range(6)}).double()
    generator = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        x = torch.randn(16, 6, generator=generator).double()
        labels = torch.randint(3, (6, 16), generator=generator)
        return x, lambda z: {
            task: (1 + int(task)) * F.cross_entropy(head(z), labels[int(task)]) for task, head in heads.items()
        }

    return pt.FastBacktracking(encoder, heads, pt.MGDA(), samples=None, verify=1), batch


@pytest.mark.parametrize("seed", [0, 4, 8])
def test_direction_is_replaced_where_two_secants_show_an_ascent(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ascents: list[int] = []
    search, batch = different_tasks(seed)
    evaluated = attempt._evaluated

    def recorded(*arguments: Any) -> Any:
        trial, state = evaluated(*arguments)
        if trial.ending is attempt.Ending.ASCENT:
            ascents.append(search.steps)
        return trial, state

    monkeypatch.setattr(attempt, "_evaluated", recorded)
    steps = [search.step(*batch()) for _ in range(60)]
    assert ascents
    for number in ascents:
        assert "would increase the loss of task" in steps[number].fallback
    for step in steps:
        assert step.accepted
        assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


def test_secant_spans_more_than_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    search, batch = different_tasks(0)
    search.step(*batch())
    assert search.last is not None
    search.state = search.state._replace(rules=search.state.rules._replace(last=1e-12 * search.last.bound))
    spans: list[float] = []
    secant = jacobian_products.secant

    def recorded(*arguments: Any) -> list[Tensor]:
        spans.append(arguments[2])
        found: list[Tensor] = secant(*arguments)
        return found

    monkeypatch.setattr("paretorch.linesearch.fast.displacement.secant", recorded)
    search.step(*batch())
    assert spans[0] > 1e-6 * search.last.bound
