"""Line search: a step size that every task agrees to, found along the way."""

from paretorch.linesearch.backtracking import Backtracking
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import Outcome, Step
from paretorch.linesearch.fast import FastBacktracking
from paretorch.linesearch.metrics import Identity, Metric
from paretorch.linesearch.rules import Rules
from paretorch.linesearch.search import LineSearch

__all__ = [
    "Backtracking",
    "FastBacktracking",
    "Identity",
    "LineSearch",
    "Metric",
    "Outcome",
    "Rules",
    "Step",
    "UpperBound",
]
