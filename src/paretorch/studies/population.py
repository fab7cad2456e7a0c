"""Population-based search for static weights."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paretorch.balance.static import Static
from paretorch.core.arrays import Array
from paretorch.core.fork.fork import Fork
from paretorch.core.gradients.finite import all_finite
from paretorch.loop.evaluation import Scores
from paretorch.metrics import delta_m_to_best
from paretorch.storage import atomic
from paretorch.storage.checkpoint_file import CheckpointFile
from paretorch.storage.checkpoint_folder import Checkpoint
from paretorch.training import randomness, updates
from paretorch.training.balanced_run import check_weighted, declared, seeded
from paretorch.training.evaluation import evaluate
from paretorch.training.resolved_run import ResolvedRun
from paretorch.training.run import Run
from paretorch.training.workload_checks import metrics_of
from paretorch.workloads.streams import (
    combined_seed,
    positions_of,
    restore_positions,
    steps_per_epoch,
    training_batches,
)

FEWEST_MEMBERS = 4  # so that a quarter is a member
SPREAD = 1.5  # standard deviation of the logarithms of the first weights
PERTURBATION = 0.5  # standard deviation of their change after a copy


@dataclass(frozen=True)
class Member:
    """A member of a population after the last round.

    Args:
        weights: by task, with a mean of one: the geometric mean over all epochs, those before it was copied included.
        metrics: on validation data, by task and metric.
        delta_m: percent on validation data, relative to the best value of each metric in the population; lower is better.
        copies: the number of copies in its history; 0: its weights never changed.
    """

    weights: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, float]]
    delta_m: float
    copies: int


@dataclass(frozen=True)
class Population:
    """The result of a population-based search.

    Args:
        members: the best first; their training costs as much as a run each.
    """

    members: tuple[Member, ...]

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights of the best member."""
        return self.members[0].weights


@dataclass(frozen=True)
class _State:
    """A member between two rounds.

    Args:
        logarithms: (T,) of its weights in the next round.
        past: (T,) those of each epoch.
        states: of the model and the optimizer, which nothing changes.
        copies: see :class:`Member`.
    """

    logarithms: Array
    states: Mapping[str, Any]
    past: tuple[Array, ...] = ()
    copies: int = 0


def search_population(
    run: Run,
    members: int = 8,
    rounds: int = 5,
    centre: Mapping[str, float] | None = None,
    report: Callable[[str], object] = lambda line: None,
    checkpoint: Path | None = None,
) -> Population:
    """Population-based search: members with different static weights are trained, and the worst copy the best.

    All members start from one model and use the same batches, so that they differ in their weights alone. The first has equal
    weights and the second those of ``centre``; the logarithms of the others are normal around it. After each round but the
    last, the worst quarter copies the model, the optimizer and the weights of a member of the best quarter, and adds normal
    noise to the logarithms of the weights. Members are ranked by Delta m on validation data, relative to the best value of each
    metric in the population, so that no single-task run is needed. The test set is not used.

    Args:
        run: what each member trains, with static weights in place of its method.
        members: number of members, at least 4, trained one after the other on the device of the run.
        rounds: into which the epochs are divided, at least 2 and at most one for each epoch.
        centre: weights by task, such as those of :func:`~paretorch.training.balanced_run.balanced_weights`; None: equal ones, and
            the second member has random weights, too.
        report: receives a line after each round.
        checkpoint: a folder in which each member is stored after each round, and from which the same call continues after an
            interruption, to the same result; None: nothing is stored.

    Raises:
        ValueError: a number out of range, a single task, no metric on validation data, no member with finite metrics, or an
            optimizer that balances by itself.

    Example:
        >>> run = Run("tabular", {"table": "diabetes"}, batch_size=64, epochs=4, optimizer_options={"lr": 0.01})
        >>> found = search_population(run, members=4, rounds=2)
        >>> len(found.members), sorted(found.weights)
        (4, ['bmi', 'bp', 'progression'])

    References:
        Jaderberg et al., "Population Based Training of Neural Networks", 2017, with truncation selection; Royer et al.,
        "Scalarization for Multi-Task and Multi-Domain Learning at Scale", NeurIPS 2023, for the weights of losses. The result
        is a mean over the epochs of the best member, because the weights found are used from the first step on.
    """
    check_population(run, members, rounds)
    check_weighted(run)
    random = np.random.default_rng(combined_seed(run.seed, 2))
    with seeded(dataclasses.replace(run, method="Equal()", surface="features", test=False)) as resolved:
        _check(resolved)
        tasks, quarter = resolved.tasks, members // 4
        population = [_State(logarithms, _states(resolved)) for logarithms in _first(tasks, members, centre, random)]
        options = {"members": members, "rounds": rounds, "centre": None if centre is None else dict(centre)}
        stored = None if checkpoint is None else _StoredMembers(checkpoint, declared(run, **options), members)
        first = 0 if stored is None else stored.last_round(rounds)
        changes = [_draw_changes(random, quarter, len(tasks)) for _ in range(rounds - 1)]
        for number in range(first, rounds):
            epochs = range(run.epochs * number // rounds, run.epochs * (number + 1) // rounds)
            positions = positions_of(resolved.splits.train)
            trained = []
            for place, member in enumerate(population):
                found = None if stored is None else stored.load(resolved, number, place)
                if found is None:
                    restore_positions(resolved.splits.train, positions)
                    found = _train(resolved, member, epochs)
                    if stored is not None:
                        stored.save(resolved, number, place, *found)
                trained.append(found)
            if stored is not None and number:
                stored.remove(number - 1)
            population = [member for member, _ in trained]
            values = _delta_m([scores for _, scores in trained], resolved)
            order = sorted(range(members), key=lambda place: values[place])
            if not math.isfinite(values[order[0]]):
                raise ValueError(f"no member has finite metrics after round {number + 1}: lower the learning rate")
            report(
                f"round {number + 1} of {rounds}: best weights {_text(_weights(population[order[0]].logarithms, tasks))}"
            )
            if number + 1 < rounds:
                for place, (rank, change) in zip(order[-quarter:], changes[number], strict=True):
                    best = population[order[rank]]
                    population[place] = dataclasses.replace(
                        best, logarithms=best.logarithms + change, copies=best.copies + 1
                    )
    return Population(tuple(_member(population[place], trained[place][1], values[place], tasks) for place in order))


def check_population(run: Run, members: int, rounds: int) -> None:
    """Checks the size of a population and the number of its rounds.

    Raises:
        ValueError: one of them is out of range.
    """
    if members < FEWEST_MEMBERS:
        raise ValueError(
            f"a population has at least {FEWEST_MEMBERS} members, of which a quarter is replaced, got {members}"
        )
    if not 2 <= rounds <= run.epochs:
        raise ValueError(f"rounds are at least 2, and at most the epochs of the run, {run.epochs}; got {rounds}")


class _StoredMembers:
    """The members after a round, each in a checkpoint of its own.

    Args:
        folder: with a folder for each round in it.
        declared: what decides the numbers of the search.
        members: number of members.
    """

    def __init__(self, folder: Path, declared: Mapping[str, str], members: int) -> None:
        self.folder, self.declared, self.members = folder, declared, members

    def last_round(self, rounds: int) -> int:
        """The last round of which all members are stored, from which the search continues; 0 if there is none."""
        complete = (
            number
            for number in reversed(range(rounds))
            if all(self._file(number, place).path.exists() for place in range(self.members))
        )
        return next(complete, 0)

    def load(self, resolved: ResolvedRun, number: int, place: int) -> tuple[_State, Scores] | None:
        """A member after a round, and its scores, where the optimizer's state is that of the run; None if it is not stored."""
        file = self._file(number, place)
        if (stored := file.load()) is None:
            return None
        Checkpoint(number, stored, file.path).load_into(resolved.model, resolved.optimizer, None)
        restore_positions(resolved.splits.train, stored["positions"])
        past = tuple(stored["past"].numpy())
        return (
            _State(stored["logarithms"].numpy(), _states(resolved), past, stored["copies"]),
            Scores(stored["losses"], stored["metrics"]),
        )

    def save(self, resolved: ResolvedRun, number: int, place: int, member: _State, scores: Scores) -> None:
        """Stores a member that was trained in a round."""
        content = {
            **member.states,
            "door": {},
            "logarithms": torch.from_numpy(member.logarithms),
            "past": torch.from_numpy(np.stack(member.past)),
            "copies": member.copies,
            "losses": dict(scores.losses),
            "metrics": {task: dict(values) for task, values in scores.metrics.items()},
            "positions": positions_of(resolved.splits.train),
        }
        self._file(number, place).save(number + 1, content)

    def remove(self, number: int) -> None:
        """Removes the members of a round."""
        atomic.remove_folder(self._folder(number))

    def _file(self, number: int, place: int) -> CheckpointFile:
        return CheckpointFile(self._folder(number) / f"member-{place + 1}", self.declared)

    def _folder(self, number: int) -> Path:
        return self.folder / f"round-{number + 1}"


def _draw_changes(random: np.random.Generator, quarter: int, tasks: int) -> list[tuple[int, Array]]:
    """For each member that is replaced after a round: the rank of the one it copies, and the (T,) change of the logarithms."""
    return [(int(random.integers(quarter)), PERTURBATION * random.standard_normal(tasks)) for _ in range(quarter)]


def _member(state: _State, scores: Scores, value: float, tasks: Sequence[str]) -> Member:
    return Member(_weights(np.mean(state.past, axis=0), tasks), scores.metrics, value, state.copies)


def _check(resolved: ResolvedRun) -> None:
    run, tasks = resolved.run, resolved.tasks
    if len(tasks) < 2:
        raise ValueError(f"static weights are for two tasks or more, got {tasks[0]!r} alone")
    if not any(metrics_of(resolved.workload, tasks).values()):
        raise ValueError(f"{run.workload} has no metric by which members are ranked: give its metrics() one")


def _first(
    tasks: Sequence[str], members: int, centre: Mapping[str, float] | None, random: np.random.Generator
) -> list[Array]:
    """(T,) logarithms of the first weights of each member."""
    middle = np.zeros(len(tasks)) if centre is None else np.log([centre[task] for task in tasks])
    others = [middle + SPREAD * random.standard_normal(len(tasks)) for _ in range(members - 2)]
    return [
        np.zeros(len(tasks)),
        middle if centre is not None else middle + SPREAD * random.standard_normal(len(tasks)),
        *others,
    ]


def _train(resolved: ResolvedRun, member: _State, epochs: range) -> tuple[_State, Scores]:
    """The member after further epochs, and its scores on validation data."""
    run, model = resolved.run, resolved.model
    fork = Fork(Static(_weights(member.logarithms, resolved.tasks)), resolved.tasks).to(resolved.device)
    update = updates.make_update(resolved.workload, model, resolved.optimizer, fork, run.precision, run.clip)
    model.load_state_dict(member.states["model"])
    resolved.optimizer.load_state_dict(copy.deepcopy(member.states["optimizer"]))
    step = epochs.start * steps_per_epoch(resolved.splits.train, run.batch_size)
    for epoch in epochs:
        randomness.seed_all(combined_seed(run.seed, 1, epoch))
        model.train()
        for batch in training_batches(resolved.splits.train, run.batch_size, run.seed, epoch):
            resolved.schedule.before(step)
            update(batch)
            step += 1
    if all_finite([parameter.detach() for parameter in model.parameters()]):
        scores = evaluate(
            resolved.workload, model, resolved.splits.validation, resolved.tasks, run.batch_size, run.precision
        )
    else:  # a metric may raise an error on what such a model computes
        made = metrics_of(resolved.workload, resolved.tasks)
        scores = Scores({}, {task: {metric.name: math.nan for metric in each} for task, each in made.items()})
    past = (*member.past, *(member.logarithms for _ in epochs))
    return dataclasses.replace(member, states=_states(resolved), past=past), scores


def _states(resolved: ResolvedRun) -> dict[str, Any]:
    return copy.deepcopy({"model": resolved.model.state_dict(), "optimizer": resolved.optimizer.state_dict()})


def _delta_m(scores: Sequence[Scores], resolved: ResolvedRun) -> list[float]:
    """Delta m of each member relative to the best value of each metric; infinite where a metric is not finite."""
    metrics = {
        (task, metric.name): metric.higher_is_better
        for task, made in metrics_of(resolved.workload, resolved.tasks).items()
        for metric in made
    }
    table = [[score.metrics[task][name] for task, name in metrics] for score in scores]
    return [float(value) for value in delta_m_to_best(table, list(metrics.values()))]


def _weights(logarithms: Array, tasks: Sequence[str]) -> dict[str, float]:
    """Weights with a mean of one."""
    scaled = np.exp(logarithms - logarithms.max())
    return dict(zip(tasks, (len(tasks) * scaled / scaled.sum()).tolist(), strict=True))


def _text(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{task} {weight:.3g}" for task, weight in weights.items())
