"""Training a front: a workload, an algorithm and preferences in, a set of models out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core.checks import one_of
from paretorch.core.gradients.ranks import ALL
from paretorch.pareto.algorithms.algorithm import FrontAlgorithm
from paretorch.pareto.fitting.adapt import Adaption, begin
from paretorch.pareto.fitting.conditional import fit_conditional
from paretorch.pareto.fitting.epochs import FrontScores, train
from paretorch.pareto.fitting.plan import MakeOptimizer, Plan, adam, check_elementwise
from paretorch.pareto.fitting.steps import Training
from paretorch.pareto.front import Front, Moment
from paretorch.pareto.hypervolume import check_reference
from paretorch.pareto.models.ensemble import Ensemble
from paretorch.pareto.models.members import fill, score
from paretorch.pareto.models.rank_partition import Spread
from paretorch.pareto.preferences import checked_preferences
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import Stream, mixed


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
    progress: Callable[[Moment], None] | None = None,
    group: dist.ProcessGroup | str | None = ALL,
    checkpoint: str | Path | None = None,
) -> Front:
    """Trains one model per preference, all at once; the caller's random numbers are left as they were.

    Args:
        workload: data, model, losses and metrics.
        algorithm: how, for example :class:`~paretorch.MT2O`.
        preferences: (N, T) on the simplex; :func:`~paretorch.preferences` makes them.
        epochs: passes over the training data, at least 1.
        batch_size: samples of each stream per step.
        optimizer: makes a torch optimizer for some parameters; it sees (N, ...) stacks, and must treat every number by itself, as
            SGD, Adam and their like do. The default is Adam at 1e-3.
        schedule: factor of the learning rate by progress in [0, 1).
        reference: (T,) of the hypervolume that is recorded and, where preferences move for it, grown; None: the workload's own.
        starts: ``"common"``: all members begin with the same weights, so that what they learn can be mixed; ``"independent"``.
        execution: ``"auto"`` measures; ``"loop"``, ``"vmap"``, or by vmap only the ``"vmap encoder"`` or ``"vmap heads"``. A
            loop computes what N runs of their own compute, bit for bit.
        seed: decides initial weights, data order and dropout.
        device: where.
        every: epochs between two looks at the validation data; None: about fifty looks in all.
        progress: called at each look.
        group: the ranks over which the models are spread, each training some of them on the same batches: ``"all"`` where
            torch.distributed is initialised, a process group, or None for this process alone. Every rank gets the whole front.
        checkpoint: a folder in which the training is kept at a look, so that the same call goes on where it was killed, bit for
            bit; at the first, and then so rarely that it takes a hundredth of the time. For one process, and for algorithms
            that descend gradients.

    Raises:
        ValueError: preferences are not on the simplex, an option is out of its range, the optimizer mixes members, or the
            checkpoint is of another training.

    Example:
        >>> from paretorch.pareto.algorithms.sweep import Sweep
        >>> from paretorch.workloads.synthetic import Synthetic
        >>> front = fit_front(Synthetic(), Sweep(), preferences=[(0.9, 0.1), (0.1, 0.9)], epochs=2)
        >>> len(front), front.losses.shape
        (2, torch.Size([2, 2]))
    """
    if not isinstance(algorithm, FrontAlgorithm):
        raise ValueError(f"algorithm is one of paretorch.pareto, made, such as MT2O(), got {algorithm!r}")
    tasks = workload.tasks
    given = checked_preferences(preferences, tasks)
    algorithm.check(given, tasks)
    one_of("starts", starts, ("common", "independent"))
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("every", 1 if every is None else every)):
        if value < 1:
            raise ValueError(f"{name} is at least 1, got {value}")
    point = _reference(workload, algorithm, reference)
    check_elementwise(optimizer)
    plan = Plan(
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
    with torch.random.fork_rng():
        if algorithm.conditional:
            return fit_conditional(plan, algorithm, given, _models(plan, range(len(tasks))))
        if algorithm.evolves:
            if checkpoint is not None:
                raise ValueError(f"{type(algorithm).__name__} cannot be stopped and go on: leave checkpoint out")
            many = replace(plan, starts="independent")
            return algorithm.evolve(plan, given, _models(many, range(algorithm.starts)))
        return _fit_members(plan, algorithm, given)


def _fit_members(plan: Plan, algorithm: FrontAlgorithm, given: Tensor) -> Front:
    moving = algorithm.moving()
    preferences = given if moving is None else begin(given)
    point = None if plan.reference is None else torch.tensor(plan.reference, dtype=torch.float64)
    spread = Spread(len(given), plan.group)
    spread.agree_on_tasks(plan.workload.tasks, plan.declared(algorithm, given))
    ensemble = Ensemble(plan.workload, _models(plan, spread.rows), plan.execution, spread.rows.start)
    optimizer = plan.optimizer(ensemble.parameters)
    adaption = None if moving is None else Adaption(moving.kind, moving.rate, preferences, point)
    template = _models(plan, range(1))[0]
    splits = plan.workload.data().to(torch.device(plan.device))
    training = Training(algorithm, ensemble, optimizer, preferences, plan, plan.steps(splits.train), spread, adaption)
    if plan.checkpoint is not None and not spread.alone:
        raise ValueError("checkpoint keeps the training of one process: leave it out on several ranks")
    evaluate = partial(_scores, plan, training, template, splits.validation)
    evaluations = train(plan, plan.declared(algorithm, given), training, splits.train, evaluate)
    states = []
    trained, kept = (
        {name: spread.gathered(v.detach()) for name, v in each.items()} for each in (ensemble.trained, ensemble.kept)
    )
    for member in range(len(given)):
        fill(template, trained, kept, member)
        states.append({name: value.detach().cpu().clone() for name, value in template.state_dict().items()})
    facts = {
        "algorithm": repr(algorithm),
        "execution": ensemble.execution,
        "execution because": ensemble.why,
        "gradient evaluations": training.gradients,
        "seconds": evaluations.seconds,
        **({"took something over": sum(training.listened) / len(training.listened)} if training.listened else {}),
    }
    diverged = tuple(training.diverged.nonzero()[:, 0].tolist())
    return Front(
        plan.workload.tasks, training.preferences, evaluations.losses, tuple(evaluations.metrics), tuple(states),
        template.cpu(), diverged, tuple(evaluations.history), plan.reference, facts,
    )  # fmt: skip


def _scores(plan: Plan, training: Training, template: nn.Module, streams: tuple[Stream, ...]) -> FrontScores:
    """(N, T) losses, nan of members that have diverged, and metrics of all members on a split."""
    ensemble, spread = training.ensemble, training.spread
    rows: list[Tensor] = []
    named: list[dict[str, dict[str, float]]] = []
    for member in range(ensemble.count):
        fill(template, ensemble.trained, ensemble.kept, member)
        loss, found = score(plan.workload, template, streams, plan.batch_size)
        rows.append(loss)
        named.append(found)
    losses = torch.where(training.diverged[:, None], torch.nan, spread.gathered(torch.stack(rows)))
    return losses, list(spread.listed(named))  # type: ignore[arg-type]


def _models(plan: Plan, rows: range) -> list[nn.Module]:
    models = []
    for member in rows:
        torch.manual_seed(plan.seed if plan.starts == "common" else mixed(plan.seed, 2, member))
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
            f"{type(algorithm).__name__} makes the hypervolume grow and needs a point to measure it from: give reference=, one "
            f"value above the losses that matter for each of {workload.tasks}"
        )
    return point
