"""The tables of ``paretorch list``: a name and one sentence about each, as plain text."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from paretorch.core.contract import Method
from paretorch.optim.presets import PRESETS
from paretorch.studies.lookup import study_module, study_names
from paretorch.training.fronts.algorithms import algorithms
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import workload_class, workload_names

Rows = list[tuple[str, str]]
ROLE = re.compile(r":\w+:`([^`]*)`")  # of Sphinx


def method_rows() -> Rows:
    """Balancing methods as constructors with their defaults."""

    def about(method: type[Method[Any]]) -> str:
        several = f" It takes {method.batches} batches per step: for a loop of your own, with a Balancer."
        return _about(method) + several * (method.batches > 1)

    return [(_constructor(name, method), about(method)) for name, method in sorted(methods().items())]


def optimizer_rows() -> Rows:
    """The eight presets with their numbers; then all optimizers of this package and of torch."""

    def about(name: str, optimizer: type) -> str:
        ours = optimizer.__module__.startswith("paretorch.")
        return _about(optimizer) if ours else f"The class torch.optim.{name} of PyTorch."

    presets = [(f"{preset.number} {preset.name}", str(preset)) for preset in PRESETS]
    return [*presets, *((name, about(name, optimizer)) for name, optimizer in sorted(optimizers().items()))]


def algorithm_rows() -> Rows:
    """Algorithms for fronts as constructors with their defaults."""
    return [(_constructor(name, algorithm), _about(algorithm)) for name, algorithm in sorted(algorithms().items())]


def workload_rows() -> Rows:
    """Shipped workloads."""
    return [(name, sentence(workload_class(name).title)) for name in workload_names()]


def study_rows() -> Rows:
    """Shipped studies."""
    return [(name, _about(study_module(name))) for name in study_names()]


def _constructor(name: str, cls: type) -> str:
    made = {field.name: field.default_factory for field in fields(cls)} if is_dataclass(cls) else {}

    def argument(parameter: inspect.Parameter) -> str:
        factory = made.get(parameter.name, MISSING)
        if parameter.default is parameter.empty:
            return parameter.name
        return f"{parameter.name}={(parameter.default if factory is MISSING else factory())!r}"

    return f"{name}({', '.join(map(argument, inspect.signature(cls).parameters.values()))})"


def _about(documented: object) -> str:
    """The first sentence of a docstring as plain text; empty without a docstring."""
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    return sentence(text.partition("\n\n")[0])


def sentence(text: str) -> str:
    """The first sentence of a text, without the markup of Sphinx, with a capital letter and an end.

    Example:
        >>> sentence("the scale of :class:`~paretorch.IMTLL`, of ``every`` task. Another sentence")
        'The scale of IMTLL, of every task.'
    """
    plain = ROLE.sub(lambda found: found[1].lstrip("~").rpartition(".")[2], text)
    plain = " ".join(plain.replace("``", "").replace("`", "").split())
    first = re.split(r"(?<=[.?!])\s+(?=[A-Z])", plain, maxsplit=1)[0]
    if not first:
        return ""
    return first[0].upper() + first[1:] + ("" if first[-1] in ".?!" else ".")


LISTS = {
    "methods": method_rows,
    "optimizers": optimizer_rows,
    "algorithms": algorithm_rows,
    "workloads": workload_rows,
    "studies": study_rows,
}
