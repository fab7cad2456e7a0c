"""What there is to choose from: names, and a line about each."""

from __future__ import annotations

import importlib
import inspect

from paretorch.optim.presets import PRESETS
from paretorch.studies import catalog
from paretorch.studies.sources import names
from paretorch.training.fronts.algorithms import algorithms
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import workload_class, workload_names


def method_lines() -> list[tuple[str, str]]:
    """Balancing methods, as one would write them."""
    return [(_constructor(name, method), _first_line(method.__doc__)) for name, method in sorted(methods().items())]


def _constructor(name: str, method: type) -> str:
    """As one would write it, with the defaults."""
    parameters = inspect.signature(method).parameters.values()
    written = (p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
    return f"{name}({', '.join(written)})"


def optimizer_lines() -> list[tuple[str, str]]:
    """The eight presets by their numbers, as one would write them; then all optimizers, ours and torch's."""

    def about(name: str, optimizer: type) -> str:
        ours = optimizer.__module__.startswith("paretorch.")
        return _first_line(optimizer.__doc__) if ours else f"torch.optim.{name}"

    presets = [(f"{preset.number} {preset.name}", str(preset)) for preset in PRESETS]
    return [*presets, *((name, about(name, optimizer)) for name, optimizer in sorted(optimizers().items()))]


def algorithm_lines() -> list[tuple[str, str]]:
    """Algorithms for fronts, as one would write them."""
    return [(_constructor(name, made), _first_line(made.__doc__)) for name, made in sorted(algorithms().items())]


def workload_lines() -> list[tuple[str, str]]:
    """Shipped workloads."""
    return [(name, workload_class(name).title) for name in workload_names()]


def study_lines() -> list[tuple[str, str]]:
    """Shipped studies."""
    modules = {name: importlib.import_module(f"{catalog.__name__}.{name.replace('-', '_')}") for name in names()}
    return [(name, _first_line(module.__doc__)) for name, module in modules.items()]


def _first_line(documentation: str | None) -> str:
    return (documentation or "").strip().partition("\n")[0]


LISTS = {
    "methods": method_lines,
    "optimizers": optimizer_lines,
    "algorithms": algorithm_lines,
    "workloads": workload_lines,
    "studies": study_lines,
}
