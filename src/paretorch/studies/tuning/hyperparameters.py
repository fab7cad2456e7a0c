"""What of a run may be tuned, and the run with other settings.

Settings are named ``optimizer.OPTION`` and ``method.OPTION``. The learning rate is always among them. What else is declared
by the method and the optimizer themselves (:mod:`paretorch.core.search_space`); a preset's space counts for the options that the
run writes down, so that plain SGD is not tuned into SGD with momentum.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from paretorch.core.search_space import Choice, PerTask, Range, Space
from paretorch.optim.presets import PRESETS
from paretorch.studies.study import Combine, Study, Treatment
from paretorch.training.line_search import searches
from paretorch.training.names.constructors import Call, check_arguments, parse, pick, written
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Plain, Run

RATE = 32.0  # times larger and smaller than the run's own learning rate, where the optimizer declares no range for it
STATIC = "static weights, tuned"


def space_of(run: Run) -> Space:
    """What may be tuned of a run, the learning rate first. A single task has no method.

    Example:
        >>> list(space_of(Run("digits", method="CAGrad()")))
        ['optimizer.lr', 'method.c']
    """
    space: dict[str, Range | Choice | PerTask] = {}
    rate = _rate(run)
    declared = _optimizer_space(run)
    if rate is not None:
        space["optimizer.lr"] = declared.get("lr", Range(rate / RATE, rate * RATE, log=True))
    space |= {f"optimizer.{name}": values for name, values in declared.items() if name != "lr"}
    if len(tasks_of(run)) > 1:
        made = pick("method", parse(run.method).name, methods())
        space |= {f"method.{name}": values for name, values in made.space.items()}
    return space


def tasks_of(run: Run) -> tuple[str, ...]:
    """The tasks that a run trains."""
    return tuple(task for task in find_workload(run.workload, run.options).tasks if not run.tasks or task in run.tasks)


def settled(run: Run, settings: Mapping[str, Plain]) -> Run:
    """The run with some settings replaced.

    Example:
        >>> run = settled(Run("digits", method="CAGrad()"), {"optimizer.lr": 0.1, "method.c": 0.2})
        >>> run.method, run.optimizer_options
        ('CAGrad(c=0.2)', {'lr': 0.1})
    """
    parts: dict[str, dict[str, Plain]] = {"optimizer": {}, "method": {}}
    for name, value in settings.items():
        part, option = name.split(".", 1)
        parts[part][option] = value
    changed = dataclasses.replace(run, optimizer_options={**run.optimizer_options, **parts["optimizer"]})
    if not parts["method"]:
        return changed
    call = parse(run.method)
    return dataclasses.replace(changed, method=written(Call(call.name, (), {**_arguments(call), **parts["method"]})))


def present(run: Run) -> dict[str, Any]:
    """The settings that the run has now, of those that :func:`space_of` names and a run or a default gives."""
    call = parse(run.method)
    made = pick("method", call.name, methods())
    options = {**_defaults(made), **_arguments(call)}
    rates = {"lr": _rate(run), **run.optimizer_options}
    own = {f"optimizer.{name}": value for name, value in rates.items()}
    own |= {f"method.{name}": value for name, value in options.items()}
    return {name: own[name] for name in space_of(run) if name in own}


def base_of(treatment: Treatment, workload: str) -> tuple[Run, ...]:
    """The runs of a treatment for each of which settings are searched: one, or those of its tasks that are joined.

    A grid has a single one: its members differ in what is searched.

    Raises:
        ValueError: members of a grid that differ in more.
    """
    runs = treatment.on(workload)
    if treatment.combine is not Combine.CHOOSE:
        return runs
    if len({_without_settings(run).key for run in runs}) > 1:
        raise ValueError(
            f"treatment {treatment.label!r}: with tuning, the runs of a grid differ only in options of the method and the "
            "optimizer, which are searched instead; make other grids treatments of their own"
        )
    return runs[:1]


def with_static_weights(study: Study) -> Study:
    """The study with tuned static weights among its treatments, on every workload where methods are compared without them.

    A method that does not beat them has not shown that balancing helps.

    Raises:
        ValueError: another treatment has their label.
    """
    runs = [run for workload in study.workloads for run in _missing_static(study.on(workload))]
    if not runs:
        return study
    if STATIC in [treatment.label for treatment in study.treatments]:
        raise ValueError(
            f"study {study.name!r}: the treatment {STATIC!r} has no Static method on some workload: give it another label"
        )
    return dataclasses.replace(study, treatments=(*study.treatments, Treatment(STATIC, tuple(runs))))


def _missing_static(study: Study) -> list[Run]:
    balanced = [run for t in study.treatments for run in t.runs if len(tasks_of(run)) > 1]
    names = {parse(run.method).name for run in balanced}
    if len(names) < 2 or "weights" in {option for name in names for option in methods()[name].space}:
        return []
    weights = dict.fromkeys(tasks_of(balanced[0]), 1.0)
    plain = dataclasses.replace(
        balanced[0], method=written(Call("Static", ({**weights},))), surface="features", door={}
    )
    return [plain]


def _without_settings(run: Run) -> Run:
    return dataclasses.replace(run, method=parse(run.method).name, optimizer_options={}, seed=0)


def _arguments(call: Call) -> dict[str, Any]:
    made = pick("method", call.name, methods())
    return check_arguments(f"the method {call.name}", made, call.positional, call.named)


def _defaults(made: type) -> dict[str, Any]:
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _rate(run: Run) -> float | None:
    """The run's learning rate; None where the optimizer has none."""
    made = pick("optimizer", run.optimizer, {**optimizers(), **searches()})
    parameter = inspect.signature(made).parameters.get("lr")
    if parameter is None:
        return None
    rate = run.optimizer_options.get("lr", parameter.default)
    return float(rate) if isinstance(rate, int | float) else None


def _optimizer_space(run: Run) -> Space:
    declared: Space = next((preset.space for preset in PRESETS if preset.optimizer == run.optimizer), {})
    return {name: values for name, values in declared.items() if name == "lr" or name in run.optimizer_options}
