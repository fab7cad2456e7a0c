"""The hyperparameters of a run: their search space, their current values, and the run with other values.

Hyperparameters are named ``optimizer.OPTION`` and ``method.OPTION``; a mapping of their values is called settings. The learning
rate is always included. The others are declared by the method and by the preset of the optimizer
(:mod:`paretorch.core.search_space`). Of a preset's space only the options that the run states are searched, so that plain SGD is
not tuned into SGD with momentum.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from paretorch.core.search_space import Choice, PerTask, Range, SearchSpace
from paretorch.optim.presets import PRESETS
from paretorch.studies.study import Combine, Study, Treatment, alternatives_by_tasks
from paretorch.training.line_search import searches
from paretorch.training.names.constructors import Call, check_arguments, find_named, parse, written
from paretorch.training.names.methods import methods
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Plain, Run

RATE_FACTOR = 32.0  # largest change of the learning rate where the optimizer's preset declares no range for it
STATIC_WEIGHTS = "static weights, tuned"
SUM = "Equal"  # the method of the plain sum of losses


def search_space(run: Run) -> SearchSpace:
    """The search space of a run, the learning rate first. A run of a single task has no method to tune.

    Example:
        >>> list(search_space(Run("digits", method="CAGrad()")))
        ['optimizer.lr', 'method.c']
    """
    space: dict[str, Range | Choice | PerTask] = {}
    rate = _learning_rate(run)
    declared = _optimizer_space(run)
    if rate is not None:
        space["optimizer.lr"] = declared.get("lr", Range(rate / RATE_FACTOR, rate * RATE_FACTOR, log=True))
    space |= {f"optimizer.{name}": values for name, values in declared.items() if name != "lr"}
    if len(trained_tasks(run)) > 1:
        cls = find_named("method", parse(run.method).name, methods())
        space |= {f"method.{name}": values for name, values in cls.search_space.items()}
    return space


def trained_tasks(run: Run) -> tuple[str, ...]:
    """The tasks that a run trains."""
    return tuple(task for task in find_workload(run.workload, run.options).tasks if not run.tasks or task in run.tasks)


def with_settings(run: Run, settings: Mapping[str, Plain]) -> Run:
    """The run with other values of the given hyperparameters.

    Example:
        >>> run = with_settings(Run("digits", method="CAGrad()"), {"optimizer.lr": 0.1, "method.c": 0.2})
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


def current_settings(run: Run) -> dict[str, Any]:
    """The values in a run of the hyperparameters of :func:`search_space`, without those that have neither value nor default."""
    call = parse(run.method)
    cls = find_named("method", call.name, methods())
    options = {**_defaults(cls), **_arguments(call)}
    rates = {"lr": _learning_rate(run), **run.optimizer_options}
    values = {f"optimizer.{name}": value for name, value in rates.items()}
    values |= {f"method.{name}": value for name, value in options.items()}
    return {name: values[name] for name in search_space(run) if name in values}


def searched_runs(treatment: Treatment, workload: str) -> tuple[Run, ...]:
    """The runs of a treatment that have a search each: its only run, or all joined runs.

    Of alternatives it is the first. A grid has one search, because its runs differ only in hyperparameters; the plain sum in a
    grid of static weights has weights of one.

    Raises:
        ValueError: the runs of a grid differ in more.
    """
    runs = treatment.on(workload)
    if treatment.combine is Combine.TUNE:
        return tuple(alternatives[0] for alternatives in alternatives_by_tasks(runs))
    if treatment.combine is not Combine.CHOOSE:
        return runs
    if any(_has_weights(run) for run in runs):
        runs = tuple(_with_equal_weights(run) if parse(run.method).name == SUM else run for run in runs)
    if len({_without_settings(run).key for run in runs}) > 1:
        raise ValueError(
            f"treatment {treatment.label!r}: with tuning, the runs of a grid differ only in options of the method and the "
            "optimizer, which are searched instead; make other grids treatments of their own"
        )
    return runs[:1]


def listed_settings(treatment: Treatment, workload: str, first: Run) -> tuple[Mapping[str, Plain], ...]:
    """The settings in which the alternatives to ``first``, itself included, differ.

    Raises:
        ValueError: the alternatives differ in something else.

    Example:
        >>> from paretorch.studies.study import best_of_trials
        >>> runs = [Run("digits", optimizer_options={"lr": rate}) for rate in (0.01, 0.1)]
        >>> listed_settings(best_of_trials("sum", runs), "digits", runs[0])
        ({}, {'optimizer.lr': 0.1})
    """
    own, found = current_settings(first), []
    for run in treatment.on(workload):
        if run.tasks == first.tasks:
            settings = {name: value for name, value in current_settings(run).items() if own.get(name) != value}
            if with_settings(first, settings) != with_settings(
                run, {name: current_settings(run)[name] for name in settings}
            ):
                raise ValueError(
                    f"treatment {treatment.label!r} on {workload}: alternatives differ in the learning rate and in declared "
                    f"hyperparameters ({', '.join(search_space(first)) or 'none'}) only; make others treatments of their own"
                )
            found.append(settings)
    return tuple(found)


def check_searches(study: Study, tune: int) -> None:
    """Checks that the settings of a study can be searched, before a file is written.

    Args:
        study: of which treatments are tuned.
        tune: number of trials of all treatments; 0: only listed alternatives are tuned.

    Raises:
        ValueError: the runs of a grid, or the listed alternatives of a treatment, differ in more than settings.
    """
    for treatment in study.treatments:
        if not tune and treatment.combine is not Combine.TUNE:
            continue
        for title in treatment.workloads:
            for run in searched_runs(treatment, title):
                if treatment.combine is Combine.TUNE:
                    listed_settings(treatment, title, run)


def with_static_weights(study: Study) -> Study:
    """The study with static weights added as a treatment on every workload where methods are compared without them.

    Balancing helps only if a method is better than tuned static weights.

    Raises:
        ValueError: another treatment has the label of the added one.
    """
    runs = [run for workload in study.workloads if (run := _static_weights_run(study.on(workload))) is not None]
    if not runs:
        return study
    if STATIC_WEIGHTS in [treatment.label for treatment in study.treatments]:
        raise ValueError(
            f"study {study.name!r}: the treatment {STATIC_WEIGHTS!r} has no Static method on some workload: give it another label"
        )
    return dataclasses.replace(study, treatments=(*study.treatments, Treatment(STATIC_WEIGHTS, tuple(runs))))


def _static_weights_run(study: Study) -> Run | None:
    """The run with equal static weights, if several methods and no static weights are compared."""
    balanced = [run for t in study.treatments for run in t.runs if len(trained_tasks(run)) > 1]
    names = {parse(run.method).name for run in balanced}
    if len(names) < 2 or any(map(_has_weights, balanced)):
        return None
    return _with_equal_weights(balanced[0])


def _has_weights(run: Run) -> bool:
    """Whether the method has searched weights of the tasks."""
    return "weights" in find_named("method", parse(run.method).name, methods()).search_space


def _with_equal_weights(run: Run) -> Run:
    """The run with a static weight of one for each task."""
    static = written(Call("Static", (dict.fromkeys(trained_tasks(run), 1.0),)))
    return dataclasses.replace(run, method=static, surface="features", door={})


def _without_settings(run: Run) -> Run:
    return dataclasses.replace(run, method=parse(run.method).name, optimizer_options={}, seed=0)


def _arguments(call: Call) -> dict[str, Any]:
    cls = find_named("method", call.name, methods())
    return check_arguments(f"the method {call.name}", cls, call.positional, call.named)


def _defaults(cls: type) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _learning_rate(run: Run) -> float | None:
    """The run's learning rate; None if its optimizer has none."""
    cls = find_named("optimizer", run.optimizer, {**optimizers(), **searches()})
    parameter = inspect.signature(cls).parameters.get("lr")
    if parameter is None:
        return None
    rate = run.optimizer_options.get("lr", parameter.default)
    return float(rate) if isinstance(rate, int | float) else None


def _optimizer_space(run: Run) -> SearchSpace:
    declared: SearchSpace = next((preset.search_space for preset in PRESETS if preset.optimizer == run.optimizer), {})
    return {name: values for name, values in declared.items() if name == "lr" or name in run.optimizer_options}
