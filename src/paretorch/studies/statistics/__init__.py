"""Statistics of studies: metrics over seeds in, intervals, tests, ranks and convergence times out.

Everything here is a function of arrays; the names below are those of :mod:`paretorch.studies.statistics.paired`. It imports numpy
and scipy (and the package's check of optional packages), and does not depend on runs or files.
"""

from paretorch.studies.statistics.paired import (
    BOOTSTRAP_FROM,
    FEWEST_SEEDS,
    Comparison,
    Interval,
    Verdict,
    bootstrap_bounds,
    compare,
    holm,
    interval,
    paired_t,
    t_bounds,
    wilcoxon,
)

__all__ = [
    "BOOTSTRAP_FROM",
    "FEWEST_SEEDS",
    "Comparison",
    "Interval",
    "Verdict",
    "bootstrap_bounds",
    "compare",
    "holm",
    "interval",
    "paired_t",
    "t_bounds",
    "wilcoxon",
]
