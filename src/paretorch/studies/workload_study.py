"""The study of methods on any workload, without a file that defines it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from paretorch.core.contract import Method
from paretorch.core.method.default import DEFAULT_NAME
from paretorch.studies.study import Study, Treatment, best_of_grid, best_of_trials, check_scale, single_task
from paretorch.studies.trial_plan import check_trials
from paretorch.studies.tuning.hyperparameters import STATIC_WEIGHTS
from paretorch.studies.weight_search import grid_of_cost, population_search, random_search, static_runs
from paretorch.training.names.constructors import Call, parse, split_at_commas, written
from paretorch.training.names.methods import find_method
from paretorch.training.names.workloads import find_workload
from paretorch.training.resolved_run import combines_tasks
from paretorch.training.run import Plain, Run

SCALES = ("smoke", "small")
SUM, SINGLE_TASK = "sum", "single task"
ON_PARAMETERS = " on parameters"
STATIC_FACTORS = (5.0, 0.2)  # of one task's static weight at a time
GENERATIONS = 2  # of a population


def workload_study(
    workload: str,
    scale: str,
    methods: str = "",
    reference: str = "",
    epochs: int = 10,
    batch_size: int = 256,
    optimizer: str = "Adam(lr=0.001)",
    lr: float | None = None,
    surface: str = "features",
    schedule: str = "constant",
    baselines: bool = False,
    device: str = "cpu",
    searches: str = "",
    trials: int = 8,
) -> Study:
    """Balancing methods on one workload, with equal settings for all.

    A method that cannot be used on features is used on the shared parameters, and its label has that addition.

    Args:
        workload: as for :func:`~paretorch.training.names.workloads.find_workload`, with options: ``"digits(ink=True)"``.
        scale: ``"smoke"``: one epoch; ``"small"``: ``epochs``.
        methods: ``"sum"`` and constructors, with a comma between: ``"sum, IMTLG(), CAGrad(c=0.2)"``; at least two. Empty: the
            sum and the recommended method, with ``baselines``, compared to tuned static weights.
        reference: the method to which all others are compared; ``"sum"`` if it is among them, else the first.
        epochs: passes over the training data.
        batch_size: samples per step.
        optimizer: constructor with named options.
        lr: the learning rate, in place of that of ``optimizer``.
        surface: ``"features"`` or ``"parameters"``, on which gradients are compared.
        schedule: of the learning rate.
        baselines: add single tasks, to which Delta m is then relative, and tuned static weights.
        device: device of all runs.
        searches: of static weights, each a treatment: ``"random"``, ``"population"``, ``"grid"``, with a comma between. Their
            trials are selected on validation data, and single tasks are added, relative to which they are selected.
        trials: whole runs that each search costs at most; a grid on the simplex is as fine as they permit.

    Raises:
        ValueError: an unknown scale, workload, method or search, fewer than two methods, a workload of one task, a reference
            that is not among the methods, or a grid of which even the coarsest costs more than ``trials``.

    Example:
        >>> study = workload_study("digits(ink=True)", "smoke", "sum, IMTLG(), CAGrad(c=0.2)", reference="IMTLG()")
        >>> [treatment.label for treatment in study.treatments], study.reference
        (['sum', 'IMTLG', 'CAGrad(c=0.2)'], 'IMTLG')
    """
    call = parse(workload)
    check_scale(f"the study of {workload}", scale, SCALES)
    texts = split_at_commas(methods)
    if not texts:
        texts, baselines, reference = (SUM, f"{DEFAULT_NAME}()"), True, reference or STATIC_WEIGHTS
    if len(texts) < 2:
        raise ValueError(
            f"the study of the workload {workload} compares methods, at least two: name them, as in "
            "--methods 'sum, IMTLG(), CAGrad(c=0.2)'"
        )
    options = _named(call)
    tasks = find_workload(call.name, options).tasks
    if len(tasks) < 2:
        raise ValueError(f"the workload {workload} has one task, {tasks[0]!r}: there is nothing to balance")
    rate = {} if lr is None else {"lr": lr}
    base = Run(
        call.name,
        options,
        optimizer=parse(optimizer).name,
        optimizer_options={**_named(parse(optimizer)), **rate},
        epochs=1 if scale == "smoke" else epochs,
        batch_size=batch_size,
        schedule=schedule,
        device=device,
    )
    treatments = [_treatment(text, base, surface) for text in texts]
    treatments += _baselines(base, tasks) if baselines and not searches else ()
    treatments += _searches(searches, trials, base, tasks, baselines) if searches else ()
    labels = [treatment.label for treatment in treatments]
    chosen = _label(reference) if reference else SUM if SUM in labels else labels[0]
    reference = chosen if chosen in labels else reference
    return Study(
        name=Path(call.name).stem,
        question=f"Which of these methods is best on {workload}?",
        treatments=tuple(treatments),
        reference=reference,
        baseline=SINGLE_TASK if baselines or searches else reference,
        plain_sum=SUM if SUM in labels else "",
        recommended=DEFAULT_NAME if DEFAULT_NAME in labels else "",
    )


def one_task_at_a_time(tasks: Sequence[str]) -> tuple[Mapping[str, float], ...]:
    """Static weights that increase or decrease the weight of one task, scaled to a mean of one.

    Example:
        >>> one_task_at_a_time(("left", "right"))[0]
        {'left': 1.666667, 'right': 0.333333}
    """
    varied = [
        {task: factor if task == other else 1.0 for task in tasks} for other, factor in product(tasks, STATIC_FACTORS)
    ]
    return tuple(
        {task: round(len(tasks) * weight / sum(weights.values()), 6) for task, weight in weights.items()}
        for weights in varied
    )


def _treatment(text: str, base: Run, surface: str) -> Treatment:
    label = _label(text)
    if label == SUM:
        return Treatment(SUM, (base,))
    method: Method[Any] = find_method(text)
    if combines_tasks(base.optimizer):
        return Treatment(
            label, (replace(base, method=text, surface=surface),)
        )  # a surface is refused before the first run
    if surface == "features" and not method.features:
        return Treatment(label + ON_PARAMETERS, (replace(base, method=text, surface="parameters"),))
    return Treatment(label, (replace(base, method=text, surface=surface),))


def _label(text: str) -> str:
    label = text.strip().removesuffix("()")
    return SUM if label == "Equal" else label


def _baselines(base: Run, tasks: tuple[str, ...]) -> Iterator[Treatment]:
    yield single_task(SINGLE_TASK, base, tasks)
    grid = [written(Call("Static", (), {"weights": dict(weights)})) for weights in one_task_at_a_time(tasks)]
    yield best_of_grid(STATIC_WEIGHTS, [base, *(replace(base, method=method) for method in grid)])


def _searches(names: str, trials: int, base: Run, tasks: tuple[str, ...], baselines: bool) -> Iterator[Treatment]:
    """Single tasks and the searches of static weights; the trials of all are selected in the same way."""
    check_trials(trials)
    yield best_of_trials(SINGLE_TASK, [replace(base, tasks=(task,)) for task in tasks])
    if baselines:
        yield best_of_trials(STATIC_WEIGHTS, static_runs(base, [dict.fromkeys(tasks, 1.0), *one_task_at_a_time(tasks)]))
    for name in map(str.strip, names.split(",")):
        if name == "random":
            yield random_search(base, tasks, trials)
        elif name == "population":
            members = max(2, trials // GENERATIONS)
            yield population_search(base, tasks, members, GENERATIONS)
        elif name == "grid":
            yield grid_of_cost(base, tasks, trials)
        else:
            raise ValueError(f"searches of static weights are 'random', 'population' and 'grid', got {name!r}")


def _named(call: Call) -> dict[str, Plain]:
    if call.positional or any(isinstance(value, Call) for value in call.named.values()):
        raise ValueError(f"{written(call)!r}: options are plain values given by name, as in 'SGD(lr=0.1)'")
    return dict(call.named)
