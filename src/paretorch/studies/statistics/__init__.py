"""Statistics of studies: metrics over seeds in, intervals, tests, ranks and convergence times out.

Everything here is a function of arrays. It imports numpy and scipy (and the package's check of optional packages), and does not
depend on runs or files.
"""

from paretorch.studies.statistics.paired import interval

__all__ = ["interval"]
