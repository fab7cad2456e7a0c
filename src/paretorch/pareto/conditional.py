"""One network that takes the preference as an input, trained over preferences that are drawn."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.algorithm import FrontAlgorithm
from paretorch.pareto.front import Front, Moment
from paretorch.pareto.hypervolume import hypervolume
from paretorch.pareto.members import Losses, score
from paretorch.pareto.plan import Plan
from paretorch.workloads.streams import Samples, mixed


class Conditioned(nn.Module):
    """A model whose inputs carry the preference, which is a buffer: one network, a model for every value of it.

    Inputs (B, C, ...) get T further channels that hold the preference everywhere; a linear map of the channels, which begins as
    the identity on the C given ones, brings them back to C, so that any encoder can follow.

    Args:
        model: with an encoder and heads by task.
        example: (B, C, ...) inputs of the encoder: the number of channels is theirs.
        tasks: T.

    Raises:
        ValueError: the inputs are no tensor of at least two dimensions of floating numbers.

    Example:
        >>> from paretorch.workloads import MultiTaskModel
        >>> model = MultiTaskModel(nn.Linear(3, 2), {"a": nn.Linear(2, 1)})
        >>> Conditioned(model, torch.zeros(4, 3), 2).encoder(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    preference: Tensor

    def __init__(self, model: nn.Module, example: Any, tasks: int) -> None:
        super().__init__()
        if not isinstance(example, Tensor) or example.ndim < 2 or not example.is_floating_point():
            found = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
            raise ValueError(
                f"a preference as input needs encoder inputs (B, C, ...) of real numbers, got {found}: train a front of separate "
                "models instead, for example with MT2O()"
            )
        channels = example.shape[1]
        self.inner = model
        self.heads = model.heads
        self.mix = nn.Linear(channels + tasks, channels, bias=False)
        with torch.no_grad():
            self.mix.weight[:, :channels].copy_(torch.eye(channels))
        self.register_buffer("preference", torch.full((tasks,), 1 / tasks))

    def encoder(self, inputs: Tensor) -> Any:
        """The model's features of the inputs and the preference."""
        held = self.preference.to(inputs).reshape(1, -1, *[1] * (inputs.ndim - 2))
        joined = torch.cat([inputs, held.expand(len(inputs), -1, *inputs.shape[2:])], dim=1)
        return self.inner.encoder(self.mix(joined.movedim(1, -1)).movedim(-1, 1))  # type: ignore[operator]


def fit_conditional(plan: Plan, algorithm: FrontAlgorithm, given: Tensor) -> Front:
    """Trains one network over drawn preferences; its members are that network at the preferences given.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.
        algorithm: with ``draw`` and ``objective``.
        given: (N, T).
    """
    splits = plan.workload.data().to(torch.device(plan.device))
    torch.manual_seed(plan.seed)
    base = plan.workload.model()
    _, batch = next(plan.batches(splits.train, 0))
    model = Conditioned(base, _inputs(batch), len(plan.workload.tasks)).to(plan.device).train()
    losses_of = Losses(plan.workload, model)
    optimizer = plan.optimizer([value for value in model.parameters() if value.requires_grad])
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    history: list[Moment] = []
    losses, seconds, steps = torch.empty(0), 0.0, plan.steps(splits.train)
    metrics: list[dict[str, dict[str, float]]] = []
    generator = torch.Generator().manual_seed(mixed(plan.seed, 3))
    for epoch in range(plan.epochs):
        began = time.perf_counter()
        for step, batch in plan.batches(splits.train, epoch):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * plan.factor(step / steps)
            drawn = algorithm.draw(len(plan.workload.tasks), generator)
            model.preference.copy_(drawn)
            optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(mixed(plan.seed, 1, step))
            found = losses_of(batch)
            present = torch.tensor(losses_of.present, device=found.device)
            torch.autograd.backward(algorithm.objective(found[present], drawn.to(found)[present]))
            optimizer.step()
        seconds += time.perf_counter() - began
        if plan.looks(epoch + 1):
            losses, metrics = _scores(plan, model, given, splits.validation)
            history.append(_moment(plan, epoch + 1, (epoch + 1) * steps // plan.epochs, seconds, losses))
            if plan.progress is not None:
                plan.progress(history[-1])
    states = []
    for row in given:
        model.preference.copy_(row)
        states.append({name: value.detach().cpu().clone() for name, value in model.state_dict().items()})
    facts = {"algorithm": repr(algorithm), "gradient evaluations": steps, "seconds": seconds}
    return Front(
        plan.workload.tasks, given, losses, tuple(metrics), tuple(states), copy.deepcopy(model).cpu(),
        tuple((~losses.isfinite().all(dim=1)).nonzero()[:, 0].tolist()), tuple(history), plan.reference, facts,
    )  # fmt: skip


def _inputs(batch: tuple[Samples, ...]) -> Any:
    shapes = {tuple(part.inputs.shape[1:2]) if isinstance(part.inputs, Tensor) else None for part in batch}
    return batch[0].inputs if len(shapes) == 1 else None


def _scores(
    plan: Plan, model: Conditioned, given: Tensor, streams: Any
) -> tuple[Tensor, list[dict[str, dict[str, float]]]]:
    losses, metrics = [], []
    for row in given:
        model.preference.copy_(row)
        loss, found = score(plan.workload, model, streams, plan.batch_size)
        losses.append(loss)
        metrics.append(found)
    return torch.stack(losses), metrics


def _moment(plan: Plan, epoch: int, gradients: int, seconds: float, losses: Tensor) -> Moment:
    volume = float("nan")
    if plan.reference is not None:
        finite = losses[losses.isfinite().all(dim=1)]
        volume = hypervolume(finite, torch.tensor(plan.reference, dtype=torch.float64))
    return Moment(epoch, gradients, seconds, tuple(tuple(row) for row in losses.tolist()), volume)
