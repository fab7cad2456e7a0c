"""The tables of ``paretorch list``: a name and one line about each."""

from __future__ import annotations

import inspect

from paretorch.optim.presets import PRESETS
from paretorch.studies.lookup import study_module, study_names
from paretorch.training.fronts.algorithms import algorithms
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import workload_class, workload_names

Rows = list[tuple[str, str]]


def method_rows() -> Rows:
    """Balancing methods as constructors with their defaults."""
    return [(_constructor(name, method), _first_line(method)) for name, method in sorted(methods().items())]


def optimizer_rows() -> Rows:
    """The eight presets with their numbers; then all optimizers of this package and of torch."""

    def about(name: str, optimizer: type) -> str:
        ours = optimizer.__module__.startswith("paretorch.")
        return _first_line(optimizer) if ours else f"torch.optim.{name}"

    presets = [(f"{preset.number} {preset.name}", str(preset)) for preset in PRESETS]
    return [*presets, *((name, about(name, optimizer)) for name, optimizer in sorted(optimizers().items()))]


def algorithm_rows() -> Rows:
    """Algorithms for fronts as constructors with their defaults."""
    return [(_constructor(name, algorithm), _first_line(algorithm)) for name, algorithm in sorted(algorithms().items())]


def workload_rows() -> Rows:
    """Shipped workloads."""
    return [(name, workload_class(name).title) for name in workload_names()]


def study_rows() -> Rows:
    """Shipped studies."""
    return [(name, _first_line(study_module(name))) for name in study_names()]


def _constructor(name: str, cls: type) -> str:
    parameters = inspect.signature(cls).parameters.values()
    arguments = (p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
    return f"{name}({', '.join(arguments)})"


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


LISTS = {
    "methods": method_rows,
    "optimizers": optimizer_rows,
    "algorithms": algorithm_rows,
    "workloads": workload_rows,
    "studies": study_rows,
}
