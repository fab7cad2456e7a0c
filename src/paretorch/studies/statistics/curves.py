"""Statistics of learning curves: convergence times, late variation and spikes.

Shapes: ``S`` seeds, ``E`` epochs. A curve is the value on validation data after every epoch, lower is better, such as Delta m.
A missing value is nan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretorch.core.arrays import Array
from paretorch.studies.statistics.quality import seed_mean, seed_std

LATE_SHARE = 0.25  # of the epochs count as late
FEWEST_LATE = 4  # late epochs, if there are so many: a line has two parameters
SPIKE = 3.0  # height of a spike in robust standard deviations


@dataclass(frozen=True)
class Convergence:
    """The epochs in which the runs of a treatment reach a target.

    A run that does not reach it is *censored*: it needs more than its epochs.

    Args:
        target: value to reach.
        epochs: (S,) first epoch, counted from 1, with a value at most the target; inf if censored; nan without a result.
        seconds: (S,) training seconds until the end of that epoch; inf and nan as above.
        budget: number of epochs E.
        restricted: (S,) ``min(epochs, E)``; nan without a result. Its mean is the restricted mean time, which censoring does
            not bias, and its paired differences can be compared.
    """

    target: float
    epochs: Array
    seconds: Array
    budget: int
    restricted: Array

    def on(self, seeds: NDArray[np.bool_]) -> Convergence:
        """The same restricted to a subset of the seeds, a mask (S,)."""
        kept = (self.epochs[seeds], self.seconds[seeds], self.restricted[seeds])
        return replace(self, epochs=kept[0], seconds=kept[1], restricted=kept[2])

    @property
    def reached(self) -> int:
        """Number of seeds that reach the target."""
        return int(np.isfinite(self.epochs).sum())

    @property
    def seeds(self) -> int:
        """Number of seeds with a result."""
        return int((~np.isnan(self.epochs)).sum())

    @property
    def median(self) -> float:
        """Median of ``epochs`` over seeds with a result; inf if half of them or more are censored."""
        return _median(self.epochs)

    @property
    def median_seconds(self) -> float:
        """Median of ``seconds``, as :attr:`median`."""
        return _median(self.seconds)

    @property
    def speed(self) -> str:
        """Fast, medium, slow or very slow: the quarter of the budget that contains :attr:`median`; or not reached."""
        if math.isnan(self.median):
            return "no result"
        if math.isinf(self.median):
            return "not reached"
        return ("fast", "medium", "slow", "very slow")[min(3, math.ceil(4 * self.median / self.budget) - 1)]

    @property
    def description(self) -> str:
        """Median, speed and the number of censored runs, as text."""
        if not self.seeds:
            return "no result"
        if math.isinf(self.median):
            return f"not reached within {self.budget} epochs by {self.seeds - self.reached} of {self.seeds} runs"
        censored = (
            "" if self.reached == self.seeds else f"; {self.seeds - self.reached} of {self.seeds} runs never reach it"
        )
        return f"epoch {self.median:g} (median), {self.speed}{censored}"


def convergence(curves: ArrayLike, target: float, seconds: ArrayLike | None = None) -> Convergence:
    r"""The first epoch, and the seconds until its end, at which the curve of each seed is at most a target.

    .. math:: e_s = \min \{ e : v_{s, e} \le \text{target} \}, \qquad \tau_s = \sum_{e \le e_s} \text{seconds}_{s, e}

    Values between epochs are not measured and not interpolated. Later epochs may be worse; see :func:`stability`.

    Args:
        curves: (S, E) curves, lower is better; a row of nan is a run without a result.
        target: value to reach.
        seconds: (S, E) training seconds of each epoch; without them the seconds of the result are nan.

    Raises:
        ValueError: no epoch, a target that is not finite, or seconds of another shape than the curves.

    Example:
        >>> times = convergence([[3.0, 2.0, 1.0], [3.0, 3.0, 2.5]], target=2.0, seconds=[[5.0, 5.0, 5.0]] * 2)
        >>> times.epochs.tolist(), times.seconds.tolist(), times.restricted.tolist()
        ([2.0, inf], [10.0, inf], [2.0, 3.0])
        >>> times.description
        'not reached within 3 epochs by 1 of 2 runs'

    References:
        Royston & Parmar, "Restricted mean survival time", BMC Medical Research Methodology 13:152, 2013, for censored times.
    """
    values = np.asarray(curves, float)
    if values.ndim != 2 or values.shape[1] < 1 or not math.isfinite(target):
        raise ValueError(f"expected curves (S, E) and a finite target, got the shape {values.shape} and {target}")
    epochs = values.shape[1]
    each = np.full(values.shape, np.nan) if seconds is None else np.asarray(seconds, float)
    if each.shape != values.shape:
        raise ValueError(f"expected seconds of the curves' shape {values.shape}, got {each.shape}")
    missing = np.isnan(values).all(axis=1)
    with np.errstate(invalid="ignore"):
        reached = values <= target
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
    first[missing] = np.nan
    elapsed = np.cumsum(each, axis=1)
    index = np.where(np.isfinite(first), first - 1, 0).astype(int)
    until = np.where(np.isfinite(first), elapsed[np.arange(len(elapsed)), index], first)
    restricted = np.minimum(first, float(epochs))
    return Convergence(float(target), first, until, epochs, restricted)


def convergence_target(curves: ArrayLike, share: float = 0.95) -> float:
    r"""A target for :func:`convergence`: the value after a share of the progress of a treatment's mean curve.

    .. math:: \text{target} = \bar v_1 - \text{share} \cdot (\bar v_1 - \min_e \bar v_e)

    Args:
        curves: (S, E) curves of the reference, lower is better.
        share: share of the difference between the first epoch and the best one, in (0, 1].

    Returns:
        The target; nan if no seed is complete, or if no epoch of the mean curve is better than the first.

    Example:
        >>> round(convergence_target([[10.0, 4.0, 0.0], [10.0, 6.0, 2.0]], share=0.5), 6)
        5.5
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is in (0, 1], got {share}")
    values = np.asarray(curves, float)
    complete = values[np.isfinite(values).all(axis=1)]
    if not len(complete):
        return math.nan
    mean = complete.mean(axis=0)
    best = float(mean.min())
    return float(mean[0] - share * (mean[0] - best)) if best < mean[0] else math.nan


def _median(times: Array) -> float:
    """Median of the values that are not nan; nan if there are none."""
    known = times[~np.isnan(times)]
    return float(np.median(known)) if len(known) else math.nan


@dataclass(frozen=True)
class Stability:
    """Variation of the late epochs, spikes, and variation over seeds.

    Args:
        late: (S,) standard deviation of the late epochs about a fitted line, in the curve's unit; nan with fewer than 3 epochs.
        spikes: (S,) number of epochs much larger than both neighbours; nan with fewer than 3 epochs.
        final_std: standard deviation of the last epoch's value over seeds; nan with fewer than two seeds.
        window: number of late epochs.
    """

    late: Array
    spikes: Array
    final_std: float
    window: int

    @property
    def mean(self) -> float:
        """Mean of ``late`` over seeds."""
        return seed_mean(self.late)


def stability(curves: ArrayLike) -> Stability:
    r"""Late variation, spikes, and variation over seeds.

    *Late variation* is the residual of the last quarter of the epochs (at least of the last 4) about a fitted line, so that a
    steady decrease does not count as variation:

    .. math:: \sigma_s = \sqrt{\frac{1}{n - 2} \sum_{e > E - n} (v_{s,e} - a_s - b_s e)^2}

    A *spike* is an epoch whose value exceeds both its neighbours by more than 3 robust standard deviations (1.4826 times the
    median absolute deviation) of its curve's changes from one epoch to the next.

    Args:
        curves: (S, E) curves, lower is better; late variation and spikes of a seed with a value that is not finite are nan.

    Example:
        >>> result = stability([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 3.0, 2.0]])
        >>> result.late.round(3).tolist(), result.window, round(result.final_std, 3)
        ([0.0, 0.316], 4, 0.707)
    """
    values = np.asarray(curves, float)
    if values.ndim != 2:
        raise ValueError(f"expected curves (S, E), got the shape {values.shape}")
    epochs = values.shape[1]
    window = max(math.ceil(LATE_SHARE * epochs), min(FEWEST_LATE, epochs))
    finite = np.isfinite(values).all(axis=1)
    late, spikes = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if epochs >= 3 and finite.any():
        late[finite] = _residual_std(values[finite][:, -window:])
        spikes[finite] = _spikes(values[finite])
    return Stability(late, spikes, seed_std(values[:, -1]) if epochs else math.nan, window)


def _residual_std(values: Array) -> Array:
    """(S,) standard deviation of (S, n) values about their fitted lines, n at least 3."""
    count = values.shape[1]
    x = np.arange(count) - (count - 1) / 2
    centred = values - values.mean(axis=1, keepdims=True)
    residual = centred - np.outer(centred @ x / (x @ x), x)
    return np.asarray(np.sqrt((residual**2).sum(axis=1) / (count - 2)))


def _spikes(values: Array) -> Array:
    """(S,) number of spikes in (S, E) values; see :func:`stability`."""
    above = values[:, 1:-1] - np.maximum(values[:, :-2], values[:, 2:])
    changes = np.diff(values, axis=1)
    middle = np.median(changes, axis=1, keepdims=True)
    scale = 1.4826 * np.median(np.abs(changes - middle), axis=1, keepdims=True)
    rounding = 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    return np.asarray((above > np.maximum(SPIKE * scale, rounding)).sum(axis=1), float)
