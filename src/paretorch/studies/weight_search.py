"""Searches of static weights as treatments of a study: at random, by a population, and on a grid of the simplex.

A balancing method helps only if it is better than static weights that were searched at the same cost. Each search is a tuned
treatment (:func:`~paretorch.studies.study.best_of_trials`): its trials are selected on validation data, with a seed that no run
of the study has, and the chosen weights are trained on every seed. The report counts the trials, runs, epochs and seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from paretorch.studies.study import Combine, Treatment, alternatives_by_tasks, best_of_trials
from paretorch.studies.trial_plan import Generations, Halving, Sampled
from paretorch.training.names.constructors import Call, written
from paretorch.training.run import Run

RANDOM_WEIGHTS = "static weights, random search"
POPULATION_WEIGHTS = "static weights, population"
GRID_WEIGHTS = "static weights, grid on the simplex"
DISTRIBUTIONS = ("log", "simplex")
DECADES = 3.0  # from the smallest to the largest weight before they are scaled
MOST_RUNS = 100.0  # whole runs of a grid search; a larger one needs `most_runs`

Weights = Mapping[str, float]


def random_weights(tasks: Sequence[str], count: int, distribution: str = "log", seed: int = 0) -> tuple[Weights, ...]:
    """Weights drawn at random, with a mean of one.

    Args:
        tasks: T names.
        count: number of draws.
        distribution: ``"log"``: the logarithms are uniform over three decades, for losses of unlike scale; ``"simplex"``:
            uniform on the simplex (Dirichlet with parameter 1).
        seed: of the draws.

    Raises:
        ValueError: an unknown distribution, fewer than two tasks, or less than one draw.

    Example:
        >>> random_weights(("left", "right"), count=1)
        ({'left': 1.853303, 'right': 0.146697},)
    """
    _check_tasks(tasks)
    if count < 1:
        raise ValueError(f"a random search draws at least one set of weights, got {count}")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"weights are drawn from one of {DISTRIBUTIONS}, got {distribution!r}")
    random = np.random.default_rng(seed)
    if distribution == "simplex":
        drawn = random.dirichlet(np.ones(len(tasks)), count)
    else:
        drawn = 10.0 ** random.uniform(-DECADES / 2, DECADES / 2, (count, len(tasks)))
    return tuple(_scaled(tasks, row) for row in drawn.tolist())


def grid_size(tasks: int, parts: int) -> int:
    """The number of points of :func:`simplex_grid`: parts - 1 over tasks - 1.

    Example:
        >>> grid_size(tasks=2, parts=10), grid_size(tasks=40, parts=44)
        (9, 123410)
    """
    return math.comb(parts - 1, tasks - 1)


def simplex_grid(tasks: Sequence[str], parts: int) -> Iterator[Weights]:
    """All weights k / parts with whole numbers k of at least 1 that sum to ``parts``, scaled to a mean of one.

    Example:
        >>> [list(weights.values()) for weights in simplex_grid(("left", "right"), parts=4)]
        [[0.5, 1.5], [1.0, 1.0], [1.5, 0.5]]
    """
    _check_tasks(tasks)
    if parts < len(tasks):
        raise ValueError(
            f"a grid with a positive weight for each of {len(tasks)} tasks has at least {len(tasks)} parts, got {parts}"
        )
    for cuts in combinations(range(1, parts), len(tasks) - 1):
        ends = (0, *cuts, parts)
        yield _scaled(tasks, [high - low for low, high in pairwise(ends)])


def whole_runs(treatment: Treatment, workload: str) -> float:
    """The cost of the trials of a tuned treatment on a workload in whole runs: their epochs over those of a run.

    Example:
        >>> whole_runs(random_search(Run("digits"), ("left", "right"), trials=8), "digits")
        8.0
    """
    runs = treatment.on(workload)
    if isinstance(treatment.plan, Generations):
        return float(len(runs) * treatment.plan.number)
    if isinstance(treatment.plan, Halving):
        return _halved_runs(treatment.plan, len(runs), runs[0].epochs)
    if isinstance(treatment.plan, Sampled):
        return float(treatment.plan.trials * len(alternatives_by_tasks(runs)))
    return float(len(runs))


def random_search(
    base: Run,
    tasks: Sequence[str],
    trials: int = 8,
    distribution: str = "log",
    seed: int = 0,
    label: str = RANDOM_WEIGHTS,
) -> Treatment:
    """Static weights by random search: equal weights, and random ones in the other trials.

    Args:
        base: the run with everything but the weights.
        tasks: of the workload.
        trials: whole runs, at least 2.
        distribution: see :func:`random_weights`.
        seed: of the draws; it is not the seed of a run.
        label: of the treatment.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> treatment = random_search(Run("digits"), ("left", "right"), trials=3)
        >>> [run.method for run in treatment.runs][:2]
        ["Static(weights={'left': 1.0, 'right': 1.0})", "Static(weights={'left': 1.853303, 'right': 0.146697})"]

    References:
        Bergstra & Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.
    """
    if trials < 2:
        raise ValueError(f"a random search has at least 2 trials, the first with equal weights, got {trials}")
    weights = [dict.fromkeys(tasks, 1.0), *random_weights(tasks, trials - 1, distribution, seed)]
    return best_of_trials(label, static_runs(base, weights))


def population_search(
    base: Run,
    tasks: Sequence[str],
    members: int = 4,
    generations: int = 2,
    spread: float = 0.5,
    seed: int = 0,
    label: str = POPULATION_WEIGHTS,
) -> Treatment:
    """Static weights by a population: members with random weights, then generations that vary the best ones.

    Args:
        base: the run with everything but the weights.
        tasks: of the workload.
        members: whole runs of a generation, at least 2.
        generations: their number, at least 2.
        spread: see :class:`~paretorch.studies.trial_plan.Generations`.
        seed: of the first weights.
        label: of the treatment.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> treatment = population_search(Run("digits"), ("left", "right"), members=4, generations=2)
        >>> whole_runs(treatment, "digits")
        8.0
    """
    first = random_search(base, tasks, members, seed=seed)
    return dataclasses.replace(first, label=label, plan=Generations(generations, spread))


def grid_search(
    base: Run,
    tasks: Sequence[str],
    parts: int,
    pruned: Halving | None = Halving(),  # noqa: B008 - a frozen value
    most_runs: float = MOST_RUNS,
    seconds_per_run: float | None = None,
    label: str = GRID_WEIGHTS,
) -> Treatment:
    """Static weights on a grid of the simplex, pruned by successive halving on validation data.

    Args:
        base: the run with everything but the weights.
        tasks: of the workload.
        parts: by which the simplex is divided; see :func:`simplex_grid`.
        pruned: how the grid is pruned; None: every point is a whole run.
        most_runs: refuse a search that costs more whole runs; ``math.inf``: refuse none.
        seconds_per_run: of a whole run, for the message of a refusal.
        label: of the treatment.

    Raises:
        ValueError: fewer parts than tasks, or a search that costs more than ``most_runs``: the message has the numbers of points
            and of whole runs, and the time.

    Example:
        >>> treatment = grid_search(Run("digits", epochs=9), ("left", "right"), parts=10)
        >>> len(treatment.runs), round(whole_runs(treatment, "digits"), 2)
        (9, 3.0)
    """
    count = grid_size(len(tasks), parts) if parts >= len(tasks) else 0
    cost = float(count) if pruned is None or not count else _halved_runs(pruned, count, base.epochs)
    if cost > most_runs:
        raise ValueError(_too_large(base, len(tasks), parts, count, cost, most_runs, seconds_per_run))
    runs = static_runs(base, simplex_grid(tasks, parts))
    return Treatment(label, tuple(runs), Combine.TUNE, plan=pruned if count > 1 else None)


def grid_of_cost(base: Run, tasks: Sequence[str], runs: float, label: str = GRID_WEIGHTS) -> Treatment:
    """The finest pruned grid on the simplex that costs at most a number of whole runs.

    Raises:
        ValueError: even the coarsest grid, in which one task at a time has more weight than the others, costs more.

    Example:
        >>> treatment = grid_of_cost(Run("digits", epochs=9), ("left", "right"), runs=8)
        >>> len(treatment.runs), round(whole_runs(treatment, "digits"), 2)
        (21, 7.67)
    """
    found = grid_search(base, tasks, len(tasks) + 1, most_runs=runs, label=label)
    parts = len(tasks) + 2
    while _halved_runs(Halving(), grid_size(len(tasks), parts), base.epochs) <= runs:
        found = grid_search(base, tasks, parts, most_runs=runs, label=label)
        parts += 1
    return found


def _halved_runs(plan: Halving, alternatives: int, epochs: int) -> float:
    return sum(count * length for count, length in plan.rounds(alternatives, epochs)) / epochs


def _too_large(
    base: Run, tasks: int, parts: int, count: int, cost: float, most_runs: float, seconds_per_run: float | None
) -> str:
    time = "" if seconds_per_run is None else f", about {cost * seconds_per_run / 3600:,.1f} hours one after the other"
    return (
        f"a grid of {parts} parts over {tasks} tasks of {base.workload} has {count:,} points, whose trials cost {cost:,.1f} "
        f"whole runs{time}; the limit is {most_runs:,.0f}: use random_search() or population_search() with as many trials as "
        "you can afford, fewer parts, or most_runs=math.inf"
    )


def static_runs(base: Run, weights: Iterable[Weights]) -> list[Run]:
    """The run with each of the weights."""
    methods = [written(Call("Static", (), {"weights": dict(each)})) for each in weights]
    return [dataclasses.replace(base, method=method, surface="features", door={}) for method in methods]


def _scaled(tasks: Sequence[str], values: Sequence[float]) -> Weights:
    """Weights with a mean of one, to six decimals."""
    total = math.fsum(values)
    return {task: round(len(tasks) * value / total, 6) for task, value in zip(tasks, values, strict=True)}


def _check_tasks(tasks: Sequence[str]) -> None:
    if len(tasks) < 2:
        raise ValueError(f"static weights are for two tasks or more, got {tuple(tasks)}")
