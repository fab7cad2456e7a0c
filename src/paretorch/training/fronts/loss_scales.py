"""Whether the losses of a front's tasks are of unlike scale, before it is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

import torch

from paretorch.balance.static_weights import UNLIKE
from paretorch.pareto.models.members import Losses
from paretorch.training.fronts.run import resolve_front
from paretorch.training.names.constructors import Call, parse, written
from paretorch.training.run import Run
from paretorch.training.workload_checks import check_losses, data_of, trained_model
from paretorch.workloads.base import Workload
from paretorch.workloads.streams import training_batches

MOST = 6  # numbers in a note


def unlike_scales_note(run: Run) -> str:
    """That the first losses of a run's front, or their gradients on the encoder, are of unlike scale, with what to do about it.

    They are those of a model with initial weights, in eval mode, on the first training batch. An algorithm that normalizes
    losses, or that compares models by dominance alone, does not depend on their scales.

    Args:
        run: with ``front``.

    Returns:
        The note; an empty text if the scales are alike, or have no effect.

    Raises:
        ValueError: a name or an option of the run is not known.
    """
    resolved = resolve_front(run)
    if resolved.algorithm.normalizes or resolved.algorithm.evolves:
        return ""
    losses, norms = first_scales(resolved.workload, run)
    found = {
        name: by_task for name, by_task in (("losses", losses), ("gradient norms", norms)) if ratio(by_task) > UNLIKE
    }
    if not found:
        return ""
    numbers = "; ".join(
        f"{name} {_numbers(by_task)}, a ratio of {ratio(by_task):.2g}" for name, by_task in found.items()
    )
    call = parse(run.front)
    if "normalize" in {field.name for field in fields(resolved.algorithm)}:
        normalized = written(Call(call.name, call.positional, {**call.named, "normalize": True}))
        cure = f"--algorithm '{normalized}' divides each loss by its range on the front"
    else:
        cure = f"{call.name} has no such option, but 'MT2O(normalize=True)' divides each loss by its range on the front"
    largest = max(next(iter(found.values())).items(), key=lambda item: item[1])[0]
    return (
        f"The first losses are of unlike scale: {numbers}. Preferences weight the losses as they are, so that most models will "
        f"favour {largest!r}: {cure}."
    )


def first_scales(workload: Workload, run: Run) -> tuple[dict[str, float], dict[str, float]]:
    """The losses and the norms of their gradients on the encoder, by task with labels in the first training batch."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(run.seed)
        model = trained_model(workload, workload.tasks).eval()
    splits = data_of(workload)
    check_losses(workload, model, splits)
    batch = next(training_batches(splits.train, run.batch_size, run.seed, 0))
    module = Losses(workload, model)
    losses = module(batch)
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]  # type: ignore[union-attr]
    norms = {}
    for index, (task, present) in enumerate(zip(workload.tasks, module.present, strict=True)):
        if present and encoder:
            gradients = torch.autograd.grad(losses[index], encoder, retain_graph=True, allow_unused=True)
            norms[task] = float(torch.nn.utils.get_total_norm([each for each in gradients if each is not None]))
    values = zip(workload.tasks, losses.tolist(), module.present, strict=True)
    return {task: value for task, value, present in values if present}, norms


def ratio(values: Mapping[str, float]) -> float:
    """The ratio of the largest to the smallest positive finite value; 1 if there are fewer than two.

    Example:
        >>> ratio({"left": 2.0, "right": 0.0, "ink": 500.0})
        250.0
    """
    positive = [value for value in values.values() if 0 < value < math.inf]
    return max(positive) / min(positive) if len(positive) > 1 else 1.0


def _numbers(values: Mapping[str, float]) -> str:
    shown = [f"{task} {value:.3g}" for task, value in sorted(values.items(), key=lambda item: -item[1])]
    return ", ".join(shown if len(shown) <= MOST else [*shown[: MOST - 1], "...", shown[-1]])
