"""The diagnosis of a model: copy, measure, train shortly, measure again, advise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

import paretorch.balance
from paretorch.core.arrays import Array
from paretorch.core.contract import Method
from paretorch.core.option_checks import check_whole
from paretorch.diagnosis.advice import RECOMMENDED, Findings, advise
from paretorch.diagnosis.gradients import (
    GradientPass,
    cosines_by_batch,
    gradient_pass,
    mean_norms,
    noise_and_expected_cosines,
)
from paretorch.diagnosis.intervals import FEWEST, mean_bounds
from paretorch.diagnosis.prediction import prediction
from paretorch.diagnosis.results import Cosines, Diagnosis, Measurement, Prediction
from paretorch.diagnosis.subject import LossesOf, Subject, group_names
from paretorch.diagnosis.tables import as_text
from paretorch.diagnosis.trial_steps import trial_steps
from paretorch.diagnosis.warm_up import MakeOptimizer, adam, warm_up
from paretorch.diagnosis.wiring import problems, shared_tensors
from paretorch.training import randomness

TRIALS = 12  # trial steps of each kind
MOST = 10_000  # batches that are measured

# Methods whose weights on the features are compared with those on the parameters: invariant to scale, and not.
PREDICTED = tuple(dict.fromkeys((RECOMMENDED, "CAGrad")))


def diagnose(
    model: nn.Module,
    losses_of: LossesOf,
    batches: Iterable[Any],
    *,
    features: str | None = None,
    measured: int = 24,
    warmup: int = 100,
    seconds: float = math.inf,
    optimizer: MakeOptimizer = adam,
) -> Diagnosis:
    r"""Measures the tasks' gradients on a model of one's own, with a recommendation of how to train, in words.

    For each of K batches and every task it measures the gradient on the shared parameters (those that two losses or more reach)
    and on the features: norms, cosines :math:`\cos(g_s, g_t)` as means over batches with simultaneous 95 % intervals, the
    gradient noise scale :math:`\operatorname{tr} \Sigma_t / \lVert G_t \rVert^2`, and how well a method's weights on the
    features predict those on the parameters. Trial steps along the sum of the losses show which losses increase. All of it is
    measured twice: at the given weights and after a short training of a copy.

    The model is copied and the random generators are restored, so that parameters, buffers, gradients and training mode of
    ``model`` are as before. It takes 2 K (T + 1) forwards and backwards, some 12 (3 T + 12) for the trial steps (more
    where steps are shortened), and the warm-up.

    Args:
        model: the module that contains encoder and heads. Forks within it do not balance during the diagnosis.
        losses_of: ``losses_of(model, batch)`` returns a dict of a scalar loss by task, computed with the module that it is
            given, a copy of ``model`` in training mode; tasks without labels in this batch are left out, None, or a zero without
            a graph.
        batches: any iterable, such as a DataLoader. The first ``measured`` batches are kept and measured; the warm-up takes
            those that follow, and starts again where there are no more.
        features: name of the submodule whose output (of a Fork: whose input) the heads share (``"backbone"``,
            ``"net.encoder"``). None: the model's only Fork, else ``"encoder"`` if the model has ``encoder`` and ``heads``; else
            only gradients on parameters are compared.
        measured: K, the largest number of batches that are measured, 4 to 10,000.
        warmup: steps of the warm-up training; 0: no training, and the second measurement is the first.
        seconds: after which the warm-up ends early, which changes the numbers and is in the notes; by default it never does, so
            that the numbers do not depend on time. Without effect while torch uses deterministic algorithms only.
        optimizer: makes the optimizer of the warm-up and of the trial steps from a list of parameters; by default Adam with a
            learning rate of 0.001.

    Returns:
        The diagnosis; ``print`` it.

    Raises:
        ValueError: nothing can be measured: a single task, no shared parameter, a frozen encoder, a loss that is not finite, too
            few batches. The message names the task and the cure. Faults that leave something to measure are in ``problems``.

    Example:
        >>> import paretorch as pt
        >>> from paretorch.workloads import MultiTaskModel
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...
        >>> model = MultiTaskModel(nn.Linear(6, 4), {"small": nn.Linear(4, 1), "large": nn.Linear(4, 1)})
        >>> def losses_of(model, x):
        ...     outputs = model(x)
        ...     return {"small": (outputs["small"] - x.sum()).square().mean(),
        ...             "large": 1000 * (outputs["large"] - x.sum()).square().mean()}
        >>> found = pt.diagnose(model, losses_of, [torch.randn(16, 6) for _ in range(12)], warmup=20)
        >>> found.initial.ratio > 100, found.features
        (True, 'encoder')

    References:
        McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, for the gradient noise scale.
    """
    check_whole("measured", measured, least=FEWEST)
    if measured > MOST:  # all of them are kept, and the iterable may be endless
        raise ValueError(f"measured is the number of batches that are kept, at most {MOST:,}, got {measured}")
    check_whole("warmup", warmup, least=0)
    subject = Subject(model, losses_of, features)
    with randomness.preserved(subject.device), torch.enable_grad(), subject.prepared():
        kept, others = _kept(batches, measured)
        if not subject.parameters:
            raise ValueError(
                f"every parameter of the model is frozen: all {len(subject.frozen)} have requires_grad=False, so there is "
                "nothing to train"
            )
        first = gradient_pass(subject, kept)
        shared = shared_tensors(first, subject, kept[0])
        found = problems(first, subject, shared, subject.foreign(kept[0]))
        made = optimizer(subject.parameters)
        weights = _equalizing(first.tasks, mean_norms(first.on(shared)))
        initial = _measurement(subject, first, shared, 0)
        limit = math.inf if torch.are_deterministic_algorithms_enabled() else seconds
        done = warm_up(subject, others, made, weights, warmup, limit)
        second = gradient_pass(subject, kept) if done else first
        tasks = first.tasks
        second = second.ordered(tasks)
        weights = _equalizing(tasks, mean_norms(second.on(shared)))
        trained = _measurement(subject, second, shared, done) if done else initial
        trials = trial_steps(subject, kept[: TRIALS + 1], tasks, weights, made)
    own_inputs = _own_inputs(first)
    there, given = np.einsum("ktt->kt", first.on(shared)) > 0, np.isfinite(first.loss_table)
    missing = [
        task
        for task, (one, loss) in zip(tasks, zip(there.T, given.T, strict=True), strict=True)
        if one.any() and (loss & ~one).any()
    ]
    advice = advise(Findings(tuple(tasks), trained, trials, weights, own_inputs, tuple(missing)))
    sizes = set(first.samples)
    result = Diagnosis(
        tasks=tuple(tasks),
        verdict=advice[0].recommendation,
        advice=advice,
        problems=tuple(found),
        weights=weights,
        initial=initial,
        trained=trained,
        trials=trials,
        batches=len(kept),
        batch_size=sizes.pop() if len(sizes) == 1 else None,
        features=subject.features,
        shared=sum(subject.parameters[index].numel() for index in shared),
        notes=tuple(_notes(subject, len(kept), done, warmup, made)),
    )
    return replace(result, text=as_text(result))


def _kept(batches: Iterable[Any], count: int) -> tuple[list[Any], Iterator[Any]]:
    """The first batches, and an endless iterator over those that follow and over all again.

    Raises:
        ValueError: there are too few.
    """
    iterator = iter(batches)
    kept = list(itertools.islice(iterator, count))
    if len(kept) < FEWEST:
        raise ValueError(
            f"batches: expected at least {FEWEST} batches, got {len(kept)}: intervals are over batches; a few dozen are good"
        )

    def following() -> Iterator[Any]:
        yield from iterator
        while True:
            empty = True
            for batch in batches:  # a DataLoader starts again; a generator is exhausted
                empty = False
                yield batch
            if empty:
                yield from kept

    return kept, following()


def _equalizing(tasks: Sequence[str], norms: Array) -> dict[str, float]:
    """Weights with a mean of one at which gradient norms agree; tasks without gradient have weight one."""
    positive = norms > 0
    inverse = np.where(positive, 1 / np.where(positive, norms, 1.0), 0.0)
    scale = positive.sum() / inverse.sum() if positive.any() else 1.0
    return {task: float(value * scale) if value else 1.0 for task, value in zip(tasks, inverse, strict=True)}


def _measurement(
    subject: Subject,
    found: GradientPass,
    shared: Sequence[int],
    steps: int,
) -> Measurement:
    on_parameters = found.on(shared)
    on_features = found.on_feature_tensors if len(found.feature_gramians) == len(found.gramians) else None
    noise, least, expected = noise_and_expected_cosines(
        on_parameters, found.of_sums(subject, shared), found.with_earlier(shared)
    )
    layers = group_names([subject.names[index] for index in shared])
    table = found.loss_table
    there = np.isfinite(table)
    return Measurement(
        steps=steps,
        losses=np.where(there, table, 0).sum(axis=0) / there.sum(axis=0),
        norms=mean_norms(on_parameters),
        feature_norms=None if on_features is None else mean_norms(on_features),
        cosines=_cosines(on_parameters),
        feature_cosines=None if on_features is None else _cosines(on_features),
        layers={name: _cosines(found.on([shared[index] for index in indices])) for name, indices in layers.items()},
        expected_cosines=expected,
        noise=noise,
        noise_least=least,
        predictions={} if on_features is None else _predictions(on_features, on_parameters, table),
    )


def _cosines(gramians: Array) -> Cosines:
    tasks = gramians.shape[1]
    values = cosines_by_batch(gramians)
    return Cosines(*mean_bounds(values, comparisons=tasks * (tasks - 1) // 2))


def _predictions(on_features: Array, on_parameters: Array, losses: Array) -> dict[str, Prediction]:
    methods: dict[str, Method[Any]] = {name: getattr(paretorch.balance, name)() for name in PREDICTED}
    found = {name: prediction(method, on_features, on_parameters, losses) for name, method in methods.items()}
    return {name: each for name, each in found.items() if each is not None}


def _own_inputs(found: GradientPass) -> bool:
    """Whether no two tasks have a sample in common."""
    if not found.feature_gramians:
        return found.own_inputs
    overlap = found.feature_overlap
    return bool((overlap - np.diag(overlap.diagonal()) == 0).all() and (overlap.diagonal() > 0).sum() > 1)


def _notes(subject: Subject, batches: int, done: int, wanted: int, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    rate = optimizer.param_groups[0].get("lr")
    name = type(optimizer).__name__
    yield f"Means over {batches} batches; intervals are 95 %, for all pairs of tasks together."
    if done:
        early = f" ({wanted} were planned; the time was over)" if done < wanted else ""
        yield (
            f"The warm-up trained a copy for {done} steps{early} with {name}(lr={rate:g}) on the sum of the losses, divided by "
            "their gradient norms at the given weights."
        )
    else:
        yield "There was no warm-up training: the numbers are those of the given weights."
    if subject.features is None:
        yield "The features are unknown, so only gradients on parameters were compared: features=NAME names the encoder."
