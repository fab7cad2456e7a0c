"""Training of a family: a model for every preference, over preferences that are drawn."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.algorithms.algorithm import FrontAlgorithm
from paretorch.pareto.fitting.epochs import FrontScores, train
from paretorch.pareto.fitting.plan import Plan
from paretorch.pareto.front import Front
from paretorch.pareto.models.conditional_model import Family
from paretorch.pareto.models.ensemble import View, inner_products
from paretorch.pareto.models.members import Losses, score
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import Samples, Stream, mixed, training_batches


def fit_conditional(plan: Plan, algorithm: FrontAlgorithm, given: Tensor, models: list[nn.Module]) -> Front:
    """Trains a family over drawn preferences; the front's members are its models at the preferences given.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.
        algorithm: with ``family`` and ``draw``, and ``objective`` or ``weights``.
        given: (N, T).
        models: T to start from.
    """
    splits = plan.workload.data().to(torch.device(plan.device))
    batch = next(training_batches(splits.train, plan.batch_size, plan.seed, 0))
    family = algorithm.family(models, _inputs(batch)).to_device(plan.device).train()
    family.template.train()
    training = _Training(plan, algorithm, family, plan.steps(splits.train))
    evaluate = partial(_scores, plan, family, given, splits.validation)
    evaluations = train(plan, plan.declared(algorithm, given), training, splits.train, evaluate)
    losses = evaluations.losses
    facts = {"algorithm": repr(algorithm), "gradient evaluations": training.gradients, "seconds": evaluations.seconds}
    return Front(
        plan.workload.tasks, given, losses, tuple(evaluations.metrics), tuple(family.member(row) for row in given),
        copy.deepcopy(family.template).cpu(), tuple((~losses.isfinite().all(dim=1)).nonzero()[:, 0].tolist()),
        tuple(evaluations.history), plan.reference, facts,
    )  # fmt: skip


class _Training:
    """The steps of a family."""

    def __init__(self, plan: Plan, algorithm: FrontAlgorithm, family: Family, steps: int) -> None:
        self.plan, self.algorithm, self.family, self.steps = plan, algorithm, family, steps
        self.losses_of = Losses(plan.workload, family.template)
        self.trained: list[Tensor] = [value for value in family.parameters() if value.requires_grad]
        self.optimizer = plan.optimizer(self.trained)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(mixed(plan.seed, 3))
        self.gradients = 0

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes."""
        return {
            "family": self.family.state_dict(),
            "template": self.family.template.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "gradients": self.gradients,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.family.load_state_dict(state["family"])
        self.family.template.load_state_dict(state["template"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.gradients = state["gradients"]

    def step(self, number: int, batch: Batch) -> None:
        progress = number / self.steps
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.plan.factor(progress)
        drawn = self.algorithm.draw(len(self.plan.workload.tasks), self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        rows = []
        for preference in drawn:
            torch.manual_seed(mixed(self.plan.seed, 1, number))
            rows.append(self.family.losses(self.losses_of, batch, preference))
        present = torch.tensor(self.losses_of.present)
        if not bool(present.any()):
            return
        found, wanted = torch.stack(rows)[:, present.to(rows[0].device)], drawn[:, present]
        wanted = wanted / wanted.sum(dim=1, keepdim=True).clamp_min(1e-300)
        if self.algorithm.looks_at_gradients:
            objective = (self._weights(found, wanted, progress).to(found) * found).sum()
            self.gradients += found.numel()
        else:
            objective = self.algorithm.objective(found, wanted.to(found))
            self.gradients += len(found)
        torch.autograd.backward(objective)
        self.optimizer.step()

    def _weights(self, found: Tensor, wanted: Tensor, progress: float) -> Tensor:
        """(W, T) by the inner products of the gradients of what is trained."""
        result = []
        for losses, preference in zip(found, wanted, strict=True):
            streams = [torch.autograd.grad(loss, self.trained, retain_graph=True, allow_unused=True) for loss in losses]
            seen = losses.detach().double().cpu()[None]
            view = View((0,), seen, preference[None], inner_products(streams, 1), seen, preference[None], progress)
            result.append(self.algorithm.weights(view)[0])
        return torch.stack(result)


def _inputs(batch: tuple[Samples, ...]) -> Any:
    shapes = {tuple(part.inputs.shape[1:2]) if isinstance(part.inputs, Tensor) else None for part in batch}
    return batch[0].inputs if len(shapes) == 1 else None


def _scores(plan: Plan, family: Family, given: Tensor, streams: tuple[Stream, ...]) -> FrontScores:
    losses, metrics = [], []
    model = copy.deepcopy(family.template)
    for row in given:
        family.fill(model, row)
        loss, found = score(plan.workload, model, streams, plan.batch_size)
        losses.append(loss)
        metrics.append(found)
    return torch.stack(losses), metrics
