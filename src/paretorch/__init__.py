"""Train one PyTorch model on many losses: balance them, search the step size, train fronts, compare fairly."""

from typing import Any

from paretorch.balance import *  # noqa: F403
from paretorch.balance import __all__ as _methods
from paretorch.core.balancer import Balancer
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.fork import Fork
from paretorch.core.fork_at import fork_at
from paretorch.core.weights import weights

__version__ = "0.1.0"

__all__ = [
    "Balance",
    "Balancer",
    "Evidence",
    "Fork",
    "Method",
    "Need",
    "Status",
    "fork_at",
    "run_study",
    "weights",
    *_methods,
]


def __getattr__(name: str) -> Any:
    """What needs the optional packages of ``paretorch[studies]`` is imported where it is first used."""
    if name == "run_study":
        from paretorch.reports.compare import run_study

        return run_study
    raise AttributeError(f"module 'paretorch' has no attribute {name!r}")
