"""What learning curves say: how soon a target is reached, and how steady training is at its end.

Shapes: ``S`` seeds, ``E`` epochs. A curve is a number on validation data after every epoch; unless said otherwise lower is
better, as for the Delta m it is usually taken of. nan marks what is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretorch.studies.statistics.quality import seed_mean, seed_spread

Array = NDArray[np.float64]

LATE_SHARE = 0.25  # of the epochs: what "late" means
FEWEST_LATE = 4  # epochs, where there are so many: a line takes two of them
SPIKE = 3.0  # robust standard deviations


@dataclass(frozen=True)
class Convergence:
    """When a treatment reaches a target.

    A run that never does is *censored*: all that is known is that it takes longer than its epochs.

    Args:
        target: the number to be reached.
        epochs: (S,) the first epoch, counted from 1, with a value at least as good; inf where censored; nan without a
            result.
        seconds: (S,) training seconds until then; inf and nan as above.
        budget: E, the epochs that there were.
        restricted: (S,) ``min(epochs, E)``: its mean is the restricted mean time, which censoring does not bias, and its
            paired differences may be compared. nan without a result.
    """

    target: float
    epochs: Array
    seconds: Array
    budget: int
    restricted: Array

    @property
    def reached(self) -> int:
        """Seeds that reached the target."""
        return int(np.isfinite(self.epochs).sum())

    @property
    def seeds(self) -> int:
        """Seeds that have a result."""
        return int((~np.isnan(self.epochs)).sum())

    @property
    def median(self) -> float:
        """Median epoch over seeds, which half of them being censored does not change; inf where most are."""
        known = np.sort(self.epochs[~np.isnan(self.epochs)])
        return float(known[(len(known) - 1) // 2 :][: 2 - len(known) % 2].mean()) if len(known) else math.nan

    @property
    def median_seconds(self) -> float:
        """As :attr:`median`, in training seconds."""
        known = np.sort(self.seconds[~np.isnan(self.seconds)])
        return float(known[(len(known) - 1) // 2 :][: 2 - len(known) % 2].mean()) if len(known) else math.nan

    @property
    def speed(self) -> str:
        """Fast, medium, slow, very slow: the quarter of the budget that :attr:`median` falls in; or not reached."""
        if math.isnan(self.median):
            return "no result"
        if math.isinf(self.median):
            return "not reached"
        return ("fast", "medium", "slow", "very slow")[min(3, math.ceil(4 * self.median / self.budget) - 1)]

    @property
    def words(self) -> str:
        """As the page says it, censored runs named."""
        if not self.seeds:
            return "no result"
        if math.isinf(self.median):
            return f"not reached within {self.budget} epochs by {self.seeds - self.reached} of {self.seeds} runs"
        rest = (
            "" if self.reached == self.seeds else f"; {self.seeds - self.reached} of {self.seeds} runs never reach it"
        )
        return f"epoch {self.median:g} (median), {self.speed}{rest}"


def convergence(curves: ArrayLike, target: float, seconds: ArrayLike | None = None) -> Convergence:
    r"""The first epoch and second at which each seed's curve is at least as good as a target.

    .. math:: e_s = \min \{ e : v_{s, e} \le \text{target} \}, \qquad \tau_s = \sum_{e \le e_s} \text{seconds}_{s, e}

    Nothing is interpolated: values between two epochs were not measured. Later epochs may be worse again; that is what
    :func:`stability` is for.

    Args:
        curves: (S, E) lower is better; a row of nan is a run without a result.
        target: the value to be reached.
        seconds: (S, E) training seconds of each epoch; without it the seconds are nan.

    Raises:
        ValueError: no epoch, a target that is not finite, or seconds of another shape.

    Example:
        >>> found = convergence([[3.0, 2.0, 1.0], [3.0, 3.0, 2.5]], target=2.0, seconds=[[5.0, 5.0, 5.0]] * 2)
        >>> found.epochs.tolist(), found.seconds.tolist(), found.restricted.tolist()
        ([2.0, inf], [10.0, inf], [2.0, 3.0])
        >>> found.words
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
        good = values <= target
    first = np.where(good.any(axis=1), good.argmax(axis=1) + 1.0, np.inf)
    first[missing] = np.nan
    passed = np.cumsum(each, axis=1)
    place = np.where(np.isfinite(first), first - 1, 0).astype(int)
    until = np.where(np.isfinite(first), passed[np.arange(len(passed)), place], first)
    restricted = np.minimum(first, float(epochs))
    return Convergence(float(target), first, until, epochs, restricted)


def target_of(curves: ArrayLike, share: float = 0.95) -> float:
    r"""A target for :func:`convergence`: where a treatment's mean curve has made a share of its progress.

    .. math:: \text{target} = \bar v_1 - \text{share} \cdot (\bar v_1 - \min_e \bar v_e)

    Args:
        curves: (S, E) of the reference, lower is better.
        share: of the way from the first epoch to the best one, in (0, 1].

    Returns:
        nan where no seed is complete, or the mean curve is never better than it is after its first epoch: then there is no
        progress of which to take a share.

    Example:
        >>> round(target_of([[10.0, 4.0, 0.0], [10.0, 6.0, 2.0]], share=0.5), 6)
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


@dataclass(frozen=True)
class Stability:
    """How steady training is, and how alike seeds end.

    Args:
        late: (S,) standard deviation of the late epochs about their own line, in the curve's unit; nan with fewer than 3.
        spikes: (S,) epochs that stand out upwards between their neighbours; nan with fewer than 3 epochs.
        spread: standard deviation of the last epoch's value over seeds; nan with fewer than two.
        window: how many epochs count as late.
    """

    late: Array
    spikes: Array
    spread: float
    window: int

    @property
    def mean(self) -> float:
        """Mean of ``late`` over seeds."""
        return seed_mean(self.late)


def stability(curves: ArrayLike) -> Stability:
    r"""Late variation, spikes, and spread over seeds.

    *Late variation* is what is left of the last quarter of the epochs (of the last 4, where a quarter is fewer) after a
    straight line is taken out, so that a curve which is still falling does not count as unsteady:

    .. math:: \sigma_s = \sqrt{\frac{1}{n - 2} \sum_{e > E - n} (v_{s,e} - a_s - b_s e)^2}

    A *spike* is an epoch whose value exceeds both its neighbours by more than 3 robust standard deviations (1.4826 times the
    median absolute deviation) of its curve's changes from one epoch to the next.

    Args:
        curves: (S, E) lower is better; a seed with a value that is not finite has no late variation and no spikes.

    Example:
        >>> found = stability([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 3.0, 2.0]])
        >>> found.late.round(3).tolist(), found.window, round(found.spread, 3)
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
        late[finite] = _about_their_line(values[finite][:, -window:])
        spikes[finite] = _spikes(values[finite])
    return Stability(late, spikes, seed_spread(values[:, -1]) if epochs else math.nan, window)


def _about_their_line(values: Array) -> Array:
    """(S,) residual standard deviation of (S, n) values, n at least 3."""
    count = values.shape[1]
    x = np.arange(count) - (count - 1) / 2
    centred = values - values.mean(axis=1, keepdims=True)
    residual = centred - np.outer(centred @ x / (x @ x), x)
    return np.asarray(np.sqrt((residual**2).sum(axis=1) / (count - 2)))


def _spikes(values: Array) -> Array:
    above = values[:, 1:-1] - np.maximum(values[:, :-2], values[:, 2:])
    changes = np.diff(values, axis=1)
    middle = np.median(changes, axis=1, keepdims=True)
    scale = 1.4826 * np.median(np.abs(changes - middle), axis=1, keepdims=True)
    rounding = 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    return np.asarray((above > np.maximum(SPIKE * scale, rounding)).sum(axis=1), float)
