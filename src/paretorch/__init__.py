"""Train one PyTorch model on many losses: balance them, search the step size, train fronts, compare fairly."""

import importlib
from typing import Any

from paretorch.balance import *  # noqa: F403
from paretorch.balance import __all__ as _methods
from paretorch.core.balancer import Balancer
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.fork import Fork
from paretorch.core.fork_at import fork_at
from paretorch.core.weights import weights

__version__ = "0.1.0"

# imported where it is first used: what few need, and what needs the optional packages of paretorch[studies]
_LATER = {
    "AdaTask": "paretorch.optim",
    "Backtracking": "paretorch.linesearch",
    "FastBacktracking": "paretorch.linesearch",
    "Front": "paretorch.pareto",
    "MT2O": "paretorch.pareto",
    "MTAdam": "paretorch.optim",
    "MTAdamV2": "paretorch.optim",
    "Preconditioned": "paretorch.optim",
    "UpperBound": "paretorch.linesearch",
    "fit_front": "paretorch.pareto",
    "preferences": "paretorch.pareto",
    "run_study": "paretorch.reports.compare",
}

__all__ = [
    "AdaTask",
    "Backtracking",
    "Balance",
    "Balancer",
    "Evidence",
    "FastBacktracking",
    "Fork",
    "Front",
    "MT2O",
    "MTAdam",
    "MTAdamV2",
    "Method",
    "Need",
    "Preconditioned",
    "Status",
    "UpperBound",
    "fit_front",
    "fork_at",
    "preferences",
    "run_study",
    "weights",
    *_methods,
]


def __getattr__(name: str) -> Any:
    """Names that are imported where they are first used."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'paretorch' has no attribute {name!r}")
