"""Line searches: the step size of each step is found by trials, so that every task's loss decreases.

A search receives a model, a balancing method and a batch with its losses, moves the parameters, and returns a ``Step``.
``contract`` defines the values, ``armijo/`` the rules on plain numbers, ``backtracking`` and ``fast/`` the two searches,
``directions/`` optimizers and metrics in place of the gradient, ``replay/`` repeated forwards, ``newton/`` a second-order method.
Nothing here imports workloads, training or optimizers of the package, or depends on a method's name.
"""

from typing import TYPE_CHECKING

from paretorch.former_names import former_names
from paretorch.linesearch.armijo.rules import Rules
from paretorch.linesearch.backtracking import Backtracking
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import SearchOutcome, Step
from paretorch.linesearch.directions.kronecker import Kronecker
from paretorch.linesearch.directions.lbfgs import LBFGS
from paretorch.linesearch.directions.metrics import Identity, Metric
from paretorch.linesearch.directions.orthogonal import Orthogonal
from paretorch.linesearch.fast.search import FastBacktracking
from paretorch.linesearch.loss_scaling import LossScaling
from paretorch.linesearch.newton.newton import NewtonRun, NewtonStep, newton, newton_step
from paretorch.linesearch.search import LineSearch

if not TYPE_CHECKING:
    __getattr__ = former_names("paretorch.linesearch", {"Outcome": "SearchOutcome", "Units": "LossScaling"})

__all__ = [
    "LBFGS",
    "Backtracking",
    "FastBacktracking",
    "Identity",
    "Kronecker",
    "LineSearch",
    "LossScaling",
    "Metric",
    "NewtonRun",
    "NewtonStep",
    "Orthogonal",
    "Rules",
    "SearchOutcome",
    "Step",
    "UpperBound",
    "newton",
    "newton_step",
]
