"""Line search: a step size that every task agrees to, found along the way."""

from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.backtracking import Backtracking
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import Outcome, Step
from paretorch.linesearch.directions.kronecker import Kronecker
from paretorch.linesearch.directions.lbfgs import LBFGS
from paretorch.linesearch.directions.metrics import Identity, Metric
from paretorch.linesearch.directions.orthogonal import Orthogonal
from paretorch.linesearch.fast.search import FastBacktracking
from paretorch.linesearch.loss_scaling import Units
from paretorch.linesearch.newton.newton import NewtonRun, NewtonStep, newton, newton_step
from paretorch.linesearch.search import LineSearch

__all__ = [
    "LBFGS",
    "Backtracking",
    "FastBacktracking",
    "Identity",
    "Kronecker",
    "LineSearch",
    "Metric",
    "NewtonRun",
    "NewtonStep",
    "Orthogonal",
    "Outcome",
    "Rules",
    "Step",
    "Units",
    "UpperBound",
    "newton",
    "newton_step",
]
