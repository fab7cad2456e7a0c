"""The entrance of training: a front from a workload, an algorithm and preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core.gradients.ranks import ALL, Ranks
from paretorch.core.option_checks import check_choice
from paretorch.core.restoring import RestoredOnError
from paretorch.pareto.algorithms.contract import FrontAlgorithm
from paretorch.pareto.files.stored_front import FrontSnapshot
from paretorch.pareto.fitting.adapt import PreferenceAdapter, initial_preferences
from paretorch.pareto.fitting.conditional import fit_conditional
from paretorch.pareto.fitting.epochs import FrontScores, train
from paretorch.pareto.fitting.steps import MemberUpdate
from paretorch.pareto.front import Front
from paretorch.pareto.hypervolume import check_reference
from paretorch.pareto.models.ensemble import EXECUTIONS, Ensemble
from paretorch.pareto.models.global_generator import GLOBAL_GENERATOR, restored_generator
from paretorch.pareto.models.members import fill, score
from paretorch.pareto.models.rank_partition import RankPartition
from paretorch.pareto.plan import FrontPlan, MakeOptimizer, adam, check_elementwise
from paretorch.pareto.preferences import checked_preferences
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Stream, combined_seed


def fit_front(
    workload: Workload,
    algorithm: FrontAlgorithm,
    *,
    preferences: Tensor | Sequence[Sequence[float]],
    epochs: int,
    batch_size: int = 256,
    optimizer: MakeOptimizer = adam,
    schedule: Callable[[float], float] | None = None,
    reference: Sequence[float] | None = None,
    starts: str = "common",
    execution: str = "auto",
    seed: int = 0,
    device: str = "cpu",
    every: int | None = None,
    progress: Callable[[FrontSnapshot], None] | None = None,
    group: dist.ProcessGroup | str | None = ALL,
    checkpoint: str | Path | None = None,
) -> Front:
    """Trains one model per preference, all together; the caller's random state is unchanged.

    Args:
        workload: data, model, losses and metrics.
        algorithm: for example :class:`~paretorch.MT2O`.
        preferences: (N, T) on the simplex, for example of :func:`~paretorch.preferences`.
        epochs: passes over the training data, at least 1.
        batch_size: samples of each stream per step.
        optimizer: returns a torch optimizer of given parameters, which are (N, ...) stacks; it must be elementwise, such as SGD
            or Adam. The default is Adam at 1e-3. An algorithm without gradients (NSGA2) uses neither it nor ``schedule``.
        schedule: factor of the learning rate as a function of the progress in [0, 1).
        reference: (T,) reference point of the hypervolume, which is recorded and maximized by adapted preferences; None: that of
            the workload.
        starts: ``"common"``: all members have the same initial weights, so that parameters can be transferred; or
            ``"independent"``, which a population (NSGA2) always is.
        execution: ``"auto"`` (by a rule, see :class:`~paretorch.pareto.models.ensemble.Ensemble`), ``"measured"`` (the
            fastest on the first batch, so that the same call may give other roundings), ``"loop"``,
            ``"vmap"``, ``"vmap encoder"`` or ``"vmap heads"``. The loop
            equals N separate runs, bit for bit. Only for algorithms that train one model per preference.
        seed: of initial weights, data order and dropout.
        device: of models and data; a population (NSGA2) is evaluated on the CPU.
        every: epochs between two evaluations on validation data; None: about fifty evaluations in all.
        progress: called at each evaluation.
        group: ranks among which the models are divided; all read the same batches: ``"all"`` if torch.distributed is
            initialised, a process group, or None for this process alone. Every rank returns the whole front. A conditional
            model and a population are not divided: every rank trains the same one, and a process group raises.
        checkpoint: a folder for checkpoints, from which the same call resumes a killed training bit for bit. Written at the
            first evaluation, then so that it takes a hundredth of the time. For one process, and for algorithms with
            gradients.

    Raises:
        ValueError: preferences are not on the simplex, an option is out of its range or has no effect with this algorithm, the
            optimizer is not elementwise, or the checkpoint belongs to another training.

    Example:
        >>> from paretorch.pareto.algorithms.sweep import Sweep
        >>> from paretorch.workloads.synthetic import Synthetic
        >>> front = fit_front(Synthetic(), Sweep(), preferences=[(0.9, 0.1), (0.1, 0.9)], epochs=2)
        >>> len(front), front.losses.shape
        (2, torch.Size([2, 2]))
    """
    if not isinstance(algorithm, FrontAlgorithm):
        raise ValueError(f"algorithm is an instance of a class of paretorch.pareto, such as MT2O(), got {algorithm!r}")
    tasks = workload.tasks
    given = checked_preferences(preferences, tasks)
    algorithm.check(given, tasks)
    check_choice("starts", starts, ("common", "independent"))
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("every", 1 if every is None else every)):
        if value < 1:
            raise ValueError(f"{name} is at least 1, got {value}")
    check_choice("execution", execution, EXECUTIONS)
    if execution == "measured" and torch.are_deterministic_algorithms_enabled():
        raise ValueError(
            "execution='measured' depends on times, and torch uses deterministic algorithms only: give 'auto', which chooses by "
            "a rule"
        )
    if not algorithm.trains_members:
        _check_unused(algorithm, execution, group)
    if checkpoint is not None and Ranks(group).size > 1:
        raise ValueError("checkpoints support one process: leave checkpoint out on several ranks")
    point = _reference(workload, algorithm, reference)
    check_elementwise(optimizer)
    plan = FrontPlan(
        workload,
        epochs,
        batch_size,
        optimizer,
        schedule,
        point,
        starts,
        execution,
        seed,
        device,
        every,
        progress,
        group,
        checkpoint,
    )
    with RestoredOnError(), restored_generator():
        if algorithm.conditional:
            return fit_conditional(plan, algorithm, given, lambda: _models(plan, range(len(tasks))))
        if algorithm.evolves:
            if checkpoint is not None:
                raise ValueError(f"{type(algorithm).__name__} cannot resume a training: leave checkpoint out")
            population = replace(plan, starts="independent", device="cpu")
            return algorithm.evolve(plan, given, _models(population, range(algorithm.starts)))
        return _fit_members(plan, algorithm, given)


def _check_unused(algorithm: FrontAlgorithm, execution: str, group: dist.ProcessGroup | str | None) -> None:
    """Refuses options of an ensemble for an algorithm that trains none."""
    trained = "one conditional model" if algorithm.conditional else "a population"
    for name, value, default in (("execution", execution, "auto"), ("group", Ranks(group).group, ALL)):
        if value not in (default, None):
            raise ValueError(
                f"{name}={value!r} has no effect on {type(algorithm).__name__}, which trains {trained} instead of one model "
                f"per preference: leave {name} out"
            )


def _fit_members(plan: FrontPlan, algorithm: FrontAlgorithm, given: Tensor) -> Front:
    adaptation = algorithm.preference_adaptation()
    preferences = given if adaptation is None else initial_preferences(given)
    point = None if plan.reference is None else torch.tensor(plan.reference, dtype=torch.float64)
    partition = RankPartition(len(given), plan.group)
    partition.agree_on_tasks(plan.workload.tasks, plan.declared(algorithm, given))
    ensemble = Ensemble(plan.workload, _models(plan, partition.rows), plan.execution, partition.rows.start)
    optimizer = plan.optimizer(ensemble.parameters)
    adapter = None if adaptation is None else PreferenceAdapter(adaptation.kind, adaptation.rate, preferences, point)
    template = _models(plan, range(1))[0]
    splits = plan.workload.data().to(torch.device(plan.device))
    update = MemberUpdate(
        algorithm, ensemble, optimizer, preferences, plan, plan.steps(splits.train), partition, adapter
    )
    evaluate = partial(_scores, plan, update, template, splits.validation)
    evaluations = train(plan, plan.declared(algorithm, given), update, splits.train, evaluate)
    states = []
    trained, kept = (
        {name: partition.gathered(v.detach()) for name, v in each.items()} for each in (ensemble.trained, ensemble.kept)
    )
    for member in range(len(given)):
        fill(template, trained, kept, member)
        states.append({name: value.detach().cpu().clone() for name, value in template.state_dict().items()})
    facts = {
        "algorithm": repr(algorithm),
        "execution": ensemble.execution,
        "execution because": ensemble.why,
        **evaluations.facts(),
    }
    diverged = tuple(update.diverged.nonzero()[:, 0].tolist())
    return Front(
        plan.workload.tasks, update.preferences, evaluations.losses, tuple(evaluations.metrics), tuple(states),
        template.cpu(), diverged, tuple(evaluations.history), plan.reference, facts,
    )  # fmt: skip


def _scores(plan: FrontPlan, update: MemberUpdate, template: nn.Module, streams: tuple[Stream, ...]) -> FrontScores:
    """(N, T) losses on a split, nan for diverged members, and metrics of all members."""
    ensemble, partition = update.ensemble, update.partition
    rows: list[Tensor] = []
    named: list[dict[str, dict[str, float]]] = []
    for member in range(ensemble.count):
        fill(template, ensemble.trained, ensemble.kept, member)
        loss, found = score(plan.workload, template, streams, plan.batch_size)
        rows.append(loss)
        named.append(found)
    losses = torch.where(update.diverged[:, None], torch.nan, partition.gathered(torch.stack(rows)))
    return losses, list(partition.gathered_list(named))  # type: ignore[arg-type]


def _models(plan: FrontPlan, rows: range) -> list[nn.Module]:
    models = []
    for member in rows:
        with GLOBAL_GENERATOR:
            torch.manual_seed(plan.seed if plan.starts == "common" else combined_seed(plan.seed, 2, member))
            models.append(plan.workload.model().to(plan.device).train())
    return models


def _reference(
    workload: Workload, algorithm: FrontAlgorithm, given: Sequence[float] | None
) -> tuple[float, ...] | None:
    truth = workload.truth
    point = tuple(map(float, given)) if given is not None else None if truth is None else tuple(truth.reference)
    if point is not None:
        check_reference(point, workload.tasks)
    if point is None and algorithm.needs_reference:
        raise ValueError(
            f"{type(algorithm).__name__} maximizes the hypervolume and needs its reference point: give reference=, one "
            f"value above the relevant losses for each of {workload.tasks}"
        )
    return point
