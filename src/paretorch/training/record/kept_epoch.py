"""The epoch of a run whose weights are kept: the last one, or the best one on validation data.

The best epoch is found by comparing each epoch with the best one before it: it is better if the mean relative improvement of all
validation metrics is positive (Delta m relative to that epoch, :func:`relative_improvement`). A task without metrics is compared
by its validation loss. The units of the metrics therefore do not matter, and the history alone decides.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from paretorch.loop.evaluation import Scores
from paretorch.training.record.result import Epoch

KEPT = "kept epoch"  # the fact of a result that is the number of the best epoch

Directions = Mapping[str, Mapping[str, bool]]


def best_epoch(history: Sequence[Epoch], higher_is_better: Directions) -> int:
    """The number of the best epoch on validation data, from 1.

    Args:
        history: at least one epoch.
        higher_is_better: direction by task and metric.
    """
    best = history[0]
    for epoch in history[1:]:
        if relative_improvement(epoch.validation, best.validation, higher_is_better) > 0:
            best = epoch
    return best.epoch


def relative_improvement(scores: Scores, baseline: Scores, higher_is_better: Directions) -> float:
    r"""The mean relative improvement of metrics; positive is better.

    .. math:: \frac{1}{K} \sum_k (-1)^{[\text{lower is better}]_k} \frac{M_k - B_k}{|B_k|}

    It is over the metrics that are finite in both; a metric that is zero in the baseline is left out. Scores with fewer metrics
    that are not finite are better, whatever the others are.

    Args:
        scores: M.
        baseline: B.
        higher_is_better: direction by task and metric; a task without metrics is compared by its loss.

    Returns:
        The improvement; infinite where one of them has more metrics that are not finite. If every metric is zero in the
        baseline, the sum of the differences.

    Example:
        >>> before, after = (Scores({"left": 1.0}, {"left": {"accuracy": value}}) for value in (0.8, 0.9))
        >>> round(relative_improvement(after, before, {"left": {"accuracy": True}}), 3)
        0.125
    """
    pairs = list(zip(_signed(scores, higher_is_better), _signed(baseline, higher_is_better), strict=True))
    lost = sum(math.isfinite(base) - math.isfinite(value) for value, base in pairs)
    if lost:
        return -math.copysign(math.inf, lost)
    finite = [(value, base) for value, base in pairs if math.isfinite(value) and math.isfinite(base)]
    relative = [(value - base) / abs(base) for value, base in finite if base]
    return statistics.fmean(relative) if relative else math.fsum(value - base for value, base in finite)


def _signed(scores: Scores, higher_is_better: Directions) -> Iterator[float]:
    """The metrics by task, negated where lower is better; nan for a task without labels."""
    for task, directions in higher_is_better.items():
        if not directions:
            yield -scores.losses.get(task, math.nan)
        for name, higher in directions.items():
            value = scores.metrics.get(task, {}).get(name, math.nan) if task in scores.losses else math.nan
            yield value if higher else -value
