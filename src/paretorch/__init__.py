"""Train one PyTorch model on many losses: balance them, search the step size, train fronts, compare fairly."""

import importlib
from typing import TYPE_CHECKING, Any

from paretorch.former_names import find_former_modules

if TYPE_CHECKING:
    from paretorch.balance import *  # noqa: F403
    from paretorch.balance.static_weights import StaticWeights as StaticWeights
    from paretorch.core.balancer.balancer import Balancer as Balancer
    from paretorch.core.contract import Balance as Balance
    from paretorch.core.contract import Evidence as Evidence
    from paretorch.core.contract import Method as Method
    from paretorch.core.contract import Need as Need
    from paretorch.core.contract import Status as Status
    from paretorch.core.fork.fork import Fork as Fork
    from paretorch.core.fork.insertion import fork_at as fork_at
    from paretorch.core.method.weights import weights as weights

__version__ = "0.1.0"

find_former_modules()

# where each public name is imported from when it is first used; all others are those of paretorch.balance
_HOMES = {
    "AdaTask": "paretorch.optim",
    "Backtracking": "paretorch.linesearch",
    "Balance": "paretorch.core.contract",
    "Balancer": "paretorch.core.balancer.balancer",
    "Diagnosis": "paretorch.diagnosis",
    "Evidence": "paretorch.core.contract",
    "FastBacktracking": "paretorch.linesearch",
    "Fork": "paretorch.core.fork.fork",
    "Front": "paretorch.pareto",
    "MT2O": "paretorch.pareto",
    "MTAdam": "paretorch.optim",
    "MTAdamV2": "paretorch.optim",
    "Method": "paretorch.core.contract",
    "Need": "paretorch.core.contract",
    "Preconditioned": "paretorch.optim",
    "StaticWeights": "paretorch.balance.static_weights",
    "Status": "paretorch.core.contract",
    "UpperBound": "paretorch.linesearch",
    "find_weights": "paretorch.training.find_weights",
    "diagnose": "paretorch.diagnosis",
    "fit_front": "paretorch.pareto",
    "fork_at": "paretorch.core.fork.insertion",
    "preferences": "paretorch.pareto",
    "run_study": "paretorch.reports.compare",
    "weights": "paretorch.core.method.weights",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that importing the package costs nothing in addition to torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "metrics":
        return importlib.import_module("paretorch.metrics")
    balance = importlib.import_module("paretorch.balance")
    if name == "balance":
        return balance
    if name == "__all__":
        return [*_HOMES, *balance.__all__]
    if name in balance.__all__:
        return getattr(balance, name)
    question = ""
    if not name.startswith("_"):
        question = importlib.import_module("paretorch.core.checks").did_you_mean(name, [*_HOMES, *balance.__all__])
    raise AttributeError(f"module 'paretorch' has no attribute {name!r}{question and f'; {question}'}")


def __dir__() -> list[str]:
    return sorted({*globals(), "metrics", *__getattr__("__all__")})
