"""Public names and modules that have moved: the former one still works and warns."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

UNTIL = "the former name works until Paretorch 0.3"

# Former modules from which the documentation imported, and where their content is now.
MODULES = {
    "paretorch.core.conflict": "paretorch.core.solvers.conflict_averse",
    "paretorch.core.bargaining": "paretorch.core.solvers.bargaining",
    "paretorch.core.evidence": "paretorch.core.gradients.task_gradients",
    "paretorch.core.fork_at": "paretorch.core.fork.insertion",
    "paretorch.core.weights": "paretorch.core.method.weights",
    "paretorch.linesearch.rules": "paretorch.linesearch.armijo.rules",
    "paretorch.pareto.epo": "paretorch.pareto.algorithms.epo",
    "paretorch.pareto.linear_program": "paretorch.pareto.algorithms.linear_program",
    "paretorch.pareto.mt2o": "paretorch.pareto.algorithms.mt2o",
    "paretorch.training.spec": "paretorch.training.run",
    "paretorch.training.result": "paretorch.training.record.result",
    "paretorch.workloads.passes": "paretorch.workloads.forward",
}


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module, some of whose public names have been renamed.

    Args:
        module: the module's full name.
        names: the new name of each former one; the new names are attributes of the module.

    Returns:
        A function of a name: the renamed object with a ``FutureWarning``; ``AttributeError`` for any other name.
    """

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{names[name]}; {UNTIL}", FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(module), names[name])

    return lookup


class FormerModules:
    """Finds the modules of :data:`MODULES` for the import system, after all other finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a former module, or None for any other."""
        return ModuleSpec(name, self) if name in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: an ordinary module is made."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill a former module with the names of the one that replaces it."""
        new = MODULES[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}; {UNTIL}", FutureWarning, stacklevel=2)
        content = vars(importlib.import_module(new))
        module.__dict__.update({name: value for name, value in content.items() if not name.startswith("__")})


def find_former_modules() -> None:
    """Register :class:`FormerModules`, once."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
