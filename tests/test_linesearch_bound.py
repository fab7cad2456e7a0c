"""Upper bounds of steps: when they decrease, when they are restored, and how they are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import paretorch as pt
from paretorch.linesearch.bound import student_quantile, trend
from paretorch.workloads.digits import Digits
from paretorch.workloads.streams import training_batches


def lowered_steps(
    bound: pt.UpperBound, losses: Callable[[int], float], first: bool = True, motion: Callable[[int], float] = float
) -> list[int]:
    """The steps of 400 at which the bound was lowered."""
    state, lowered = bound.init(1, 1.0), []
    for step in range(400):
        state, reason = bound.after(state, np.array([losses(step)]), first, motion(step))
        if reason:
            lowered.append(step)
    return lowered


def test_regression_rule_detects_the_end_of_the_decrease() -> None:
    noise = np.random.default_rng(0).normal(size=400) * 0.1
    bound = pt.UpperBound("regression", window=50)
    falling = lowered_steps(bound, lambda step: math.exp(-0.02 * step + noise[step]))
    stalled = lowered_steps(bound, lambda step: math.exp(-0.02 * min(step, 150) + noise[step]))
    assert falling == []
    assert stalled
    assert 150 < stalled[0] < 250
    assert all(later - earlier >= 50 for earlier, later in pairwise(stalled))
    assert (
        lowered_steps(bound, lambda step: math.exp(noise[step]), first=False) == []
    )  # the condition limits, not the bound


def test_regression_rule_restores_the_bound_without_effect() -> None:
    noise = np.random.default_rng(1).normal(size=1000) * 0.01
    bound = pt.UpperBound("regression", window=50)
    plateau, lowered = bound.init(1, 1.0), bound.init(1, 1.0)
    bounds, reasons = [], []
    for step in range(1000):
        plateau, _ = bound.after(plateau, np.array([math.exp(noise[step])]), True, math.nan)
        bounds.append(plateau.bound)
        # the noise of steps of this length limits the loss, which decreases to a lower floor with every decrease of the bound
        depth = 1 - math.log2(lowered.bound) - math.exp(-lowered.since / 30)
        lowered, reason = bound.after(lowered, np.array([math.exp(noise[step] - depth)]), True, math.nan)
        reasons.append(reason)
    assert set(bounds) == {1.0, 0.5}
    assert lowered.bound <= 1 / 16
    assert not any("restored" in reason for reason in reasons)


def reviewed(losses: Sequence[Sequence[float]], acceptable: bool = True) -> float:
    """A bound that was found as 1, after so many steps at it."""
    bound = pt.UpperBound()
    state = bound.initialised(bound.init(len(losses[0]), math.nan), 16.0)
    assert state.bound == 1.0  # a sixteenth of what one batch allows
    for row in losses:
        state = bound.at_bound(bound.after(state, np.array(row), True, math.nan)[0], state.bound, True)
        if bound.needs_review(state):
            state = bound.reviewed(state, lambda: acceptable)
    return float(state.bound)


def test_found_bound_follows_the_trend_of_the_losses() -> None:
    noise = np.random.default_rng(2).normal(size=(12, 2)) * 0.01
    decrease = np.array([[-0.02 * step, 0.0] for step in range(12)])
    assert reviewed(np.exp(decrease + noise).tolist()) == 2.0
    assert reviewed(np.exp(decrease + noise).tolist(), acceptable=False) == 1.0
    assert reviewed(np.exp(noise).tolist()) == 1.0
    assert reviewed(np.exp(noise - decrease).tolist()) == 0.5
    assert (
        reviewed(np.exp(noise + decrease - decrease[:, ::-1]).tolist()) == 1.0
    )  # one decreases and the other increases


def test_given_bound_is_not_increased() -> None:
    bound = pt.UpperBound()
    state = bound.init(1, 1.0)
    for step in range(50):
        state = bound.at_bound(bound.after(state, np.array([0.9**step]), True, math.nan)[0], 1.0, True)
        assert not bound.needs_review(state)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_found_bound_does_not_fit_the_noise_of_a_batch(seed: int) -> None:
    """With the largest step that the first batch permits, about 9, the losses stay at the level of chance."""
    torch.manual_seed(seed)
    workload = Digits(train=5000, validation=1, test=1)
    model, stream, sums = workload.model(), workload.data().train, []
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    for epoch in range(3):
        for (batch,) in training_batches(stream, 64, seed, epoch):

            def of(z: Tensor, targets: Any = batch.targets) -> dict[str, Tensor]:
                return workload.losses({t: head(z) for t, head in model.heads.items()}, targets)  # type: ignore[union-attr, operator]

            sums.append(sum(float(loss) for loss in search.step(batch.inputs, of).losses.values()))
    assert float(np.mean(sums[-20:])) < 0.8 * 2 * math.log(10)


def test_sasa_rule_detects_stationary_motion() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    bound = pt.UpperBound("sasa", window=100)
    assert lowered_steps(bound, lambda step: 1.0, motion=lambda step: 3.0 + float(noise[step])) == []
    assert lowered_steps(bound, lambda step: 1.0, motion=lambda step: 3.0 * (step < 150) + float(noise[step]))[0] >= 150


def test_manual_rule_counts_epochs_and_fixed_rule_keeps_the_bound() -> None:
    manual = pt.UpperBound("manual", factor=0.5, every=2)
    state = manual.init(1, 1.0)
    bounds = []
    for _ in range(4):
        state, reason = manual.end_epoch(state)
        bounds.append((state.bound, bool(reason)))
    assert bounds == [(1.0, False), (0.5, True), (0.5, False), (0.25, True)]
    assert lowered_steps(pt.UpperBound(), lambda step: 1.0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "never"}, "rule"),
        ({"factor": 1.0}, "factor"),
        ({"every": 0}, "every"),
        ({"every": 2.5}, "every"),
        ({"every": True}, "every"),
        ({"window": 20.5}, "window"),
        ({"window": 5}, "window"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bound_refuses_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pt.UpperBound(**options)


def test_bound_statistics_equal_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=50).cumsum()
    fit = stats.linregress(np.arange(50), values)
    assert trend(values) == pytest.approx(fit.slope / fit.stderr, rel=1e-9)
    for share in (0.9, 0.95, 0.975):
        assert student_quantile(share, 9) == pytest.approx(stats.t.ppf(share, 9), rel=5e-3)
