"""When a search looks at where the features go: always, closer, or not at all while its steps are easy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.linesearch.fast import step as fast_step
from paretorch.linesearch.fast.displacement_reuse import ENOUGH, Calm

TASKS = ("a", "b")


SHARES = st.one_of(st.floats(-1, 2), st.just(math.nan))

GOOD, POOR, HARD = (
    (0.85, 0.4),
    (0.75, 0.4),
    (0.1, 0.4),
)  # shares of the slope kept, and of that which is known without a look


def looks(shares: list[tuple[float, float]]) -> str:
    """Of each step, whether it was looked at (``l``) or not (``-``); the shares are those of the steps in order."""
    calm, found = Calm(), ""
    for share, told in shares:
        found += "-" if calm.rests else "l"
        calm = calm.rested() if calm.rests else calm.after(share, told)
    return found


def test_two_of_three_steps_rest_after_a_run_of_five() -> None:
    assert looks([GOOD] * 14) == "lllll--l--l--l"
    assert looks([POOR] * 14) == "l" * 14  # .75 of the slope is easy, and too little to go without a look
    assert looks([(0.85, 0.2)] * 14) == "l" * 14  # what is known without a look is too little of it
    assert looks([(math.nan, 0.4)] * 14) == "l" * 14
    assert looks([GOOD] * 7 + [HARD] + [GOOD] * 9) == "lllll--llllll--l-"  # a run begins anew
    assert looks([GOOD] * 4 + [POOR] + [GOOD] * 7) == "llllllllll--"


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
def test_a_step_is_below_expectation_after_five_easy_ones(shares: list[tuple[float, float]], level: int) -> None:
    calm = Calm()
    for share, told in shares:
        calm = calm.after(share, told)
    assert calm.level == level
    assert calm.broken(0.69) == (level >= 5)
    assert calm.broken(math.nan) == (level >= 5)
    assert not calm.broken(0.7)


@given(st.lists(st.tuples(SHARES, SHARES), max_size=60))
def test_never_more_than_two_steps_in_a_row_rest_and_none_in_the_first_five(shares: list[tuple[float, float]]) -> None:
    found = looks(shares)
    assert "---" not in found
    assert "-" not in found[:5]
    if not any(share >= 0.8 and told >= 0.3 for share, told in shares):
        assert "-" not in found


def test_steps_that_are_not_easy_are_forgotten_little_by_little() -> None:
    calm = Calm()
    for _ in range(30):
        calm = calm.after(1.0)
    levels = []
    while calm.broken(0.0):
        levels.append(calm.level)
        calm = calm.after(0.0)
    assert levels == [20, 15, 11, 8, 6]


class Counted(nn.Module):
    """Counts calls of an encoder, and those with the whole batch."""

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


def apart(max_step: float = 0.5) -> tuple[Counted, pt.FastBacktracking, Tensor]:
    """An encoder of which no sample is taken to tell how another moves."""
    torch.manual_seed(0)
    encoder = Counted(nn.Embedding(64, 4).double(), 64)
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), max_step)
    search.displace.telling = False
    return encoder, search, torch.arange(64)


def test_a_deep_encoder_is_looked_at_in_one_of_three_easy_steps() -> None:
    encoder, search, x = apart()
    calls = []
    for _ in range(14):
        before = encoder.calls
        assert search.step(x, squares).accepted
        calls.append(encoder.calls - before)
    assert calls[1:] == [2, 2, 2, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2]


def test_a_rested_step_has_the_slope_of_the_balanced_loss() -> None:
    encoder, search, x = apart()
    for _ in range(5):
        search.step(x, squares)
    assert search.calm.rests
    before = {task: float(loss) for task, loss in squares(encoder(x).detach()).items()}
    step = search.step(x, squares)
    assert step.balance is not None
    assert step.balance.weights is not None
    after = {task: float(loss) for task, loss in squares(encoder(x).detach()).items()}
    weights = dict(zip(TASKS, map(float, step.balance.weights), strict=True))
    true = sum(weights[task] * (before[task] - after[task]) for task in TASKS) / step.step
    told = sum(weights[task] * step.slopes[task] for task in TASKS)
    assert true == pytest.approx(told, rel=0.05)  # up to the curvature of a short step


def test_a_step_that_is_not_as_easy_as_the_last_ones_is_looked_at() -> None:
    encoder, search, x = apart(max_step=4.0)
    for _ in range(5):
        search.step(x, squares)
    assert search.calm.rests
    before = encoder.calls
    step = search.step(x, lambda z: squares(z, curvature=12.0))
    assert encoder.calls - before >= 2
    assert step.accepted
    there = squares(encoder(x).detach(), curvature=12.0)
    assert all(float(there[task]) < float(step.losses[task]) for task in TASKS)
    assert not search.calm.rests


def test_a_loss_that_leaves_its_domain_is_not_taken_for_easy() -> None:
    encoder, search, x = apart()
    for _ in range(5):
        search.step(x, squares)
    first = encoder(x).detach()

    def walled(z: Tensor) -> dict[str, Tensor]:
        away = (z - first).abs().max()
        return {task: loss + 0 * (1e-6 - away).log() for task, loss in squares(z).items()}

    step = search.step(x, walled)
    assert step.accepted
    assert float((encoder(x).detach() - first).abs().max()) < 1e-6


def test_rest_is_resumed() -> None:
    encoder, search, x = apart()
    for _ in range(6):
        search.step(x, squares)
    again = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.5)
    again.load_state_dict(search.state_dict())
    assert again.calm == search.calm == Calm(5, 5, 1)


@pytest.mark.parametrize("options", [{"samples": None}, {"displacement": "linearised"}, {"direction": "adam"}])
def test_what_was_asked_for_by_name_is_always_looked_at(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    encoder = Counted(nn.Embedding(64, 4).double(), 64)
    if "direction" in options:
        options = {"direction": torch.optim.Adam(encoder.parameters(), lr=0.01)}
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.01, **options)
    for _ in range(12):
        before = encoder.calls
        search.step(torch.arange(64), squares)
        assert encoder.calls - before >= 2


def test_where_samples_tell_less_than_expected_the_whole_batch_is_asked() -> None:
    torch.manual_seed(0)
    encoder = Counted(nn.Linear(6, 4).double(), 64)
    search = pt.FastBacktracking(encoder, {}, pt.MGDA(), 0.05)
    x = torch.randn(1, 6, dtype=torch.float64) + 0.1 * torch.randn(64, 6, dtype=torch.float64)
    for _ in range(ENOUGH + 3):
        search.step(x, squares)
    assert search.displace.telling
    assert search.calm.level >= ENOUGH
    before = encoder.whole
    search.step(x, squares)
    assert encoder.whole - before == 1
    before = encoder.whole
    step = search.step(x, lambda z: squares(z, curvature=8.0))
    assert step.accepted
    assert encoder.whole - before >= 2


def unlike(seed: int) -> tuple[pt.FastBacktracking, Callable[[], tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]]]:
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
def test_a_direction_that_two_secants_refute_gives_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuted: list[int] = []
    search, batch = unlike(seed)

    class Uphill(fast_step.Uphill):
        def __init__(self) -> None:
            refuted.append(search.steps)
            super().__init__()

    monkeypatch.setattr(fast_step, "Uphill", Uphill)
    steps = [search.step(*batch()) for _ in range(60)]
    assert refuted
    for number in refuted:
        assert "would raise task" in steps[number].fallback
    for step in steps:
        assert step.accepted
        assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


def test_a_secant_is_never_over_less_than_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    search, batch = unlike(0)
    search.step(*batch())
    assert search.last is not None
    search._search = search._search._replace(last=1e-12 * search.last.bound)
    over: list[float] = []
    difference = search.displace.difference

    def spied(*given: Any) -> list[Tensor]:
        over.append(given[4])
        found: list[Tensor] = difference(*given)
        return found

    monkeypatch.setattr(search.displace, "difference", spied)
    search.step(*batch())
    assert over[0] > 1e-6 * search.last.bound
