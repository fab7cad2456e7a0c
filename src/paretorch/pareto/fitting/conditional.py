"""The training of a conditional model over random preferences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.core.gradients.finite import all_finite
from paretorch.loop.step_statistics import StepStatistics
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.evaluation_history import GRADIENTS
from paretorch.pareto.fitting.epochs import FrontScores, train
from paretorch.pareto.fitting.skipped_steps import broken_tasks, warn_skipped
from paretorch.pareto.front import Front
from paretorch.pareto.models.conditional_model import ConditionalModel
from paretorch.pareto.models.ensemble import inner_products
from paretorch.pareto.models.global_generator import GLOBAL_GENERATOR
from paretorch.pareto.models.members import Losses, score
from paretorch.pareto.plan import FrontPlan
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import Samples, Stream, combined_seed, training_batches

MODEL = "family"  # key of checkpoints, which earlier versions wrote too


def fit_conditional(
    plan: FrontPlan, algorithm: FrontAlgorithm, given: Tensor, initial: Callable[[], list[nn.Module]]
) -> Front:
    """Trains a conditional model over random preferences; the members of the front are its models at the given ones.

    Args:
        plan: the arguments of :func:`~paretorch.fit_front`.
        algorithm: with ``conditional_model`` and ``draw``, and ``objective`` or ``weights``.
        given: (N, T) preferences.
        initial: makes T initial models.
    """
    with GLOBAL_GENERATOR:  # the conditional model draws after the initial ones
        models = initial()
        splits = plan.workload.data().to(torch.device(plan.device))
        batch = next(training_batches(splits.train, plan.batch_size, plan.seed, 0))
        model = algorithm.conditional_model(models, _inputs(batch)).to_device(plan.device).train()
    model.template.train()
    update = _ConditionalUpdate(plan, algorithm, model, plan.steps(splits.train))
    evaluate = partial(_scores, plan, model, given, splits.validation)
    declared = plan.declared(algorithm, given)
    del declared["execution"]  # of an ensemble; checkpoints of earlier versions contain it
    evaluations = train(plan, declared, update, splits.train, evaluate)
    losses = evaluations.losses
    facts = {"algorithm": repr(algorithm), **evaluations.facts()}
    return Front(
        plan.workload.tasks, given, losses, tuple(evaluations.metrics), tuple(model.member(row) for row in given),
        copy.deepcopy(model.template).cpu(), tuple((~losses.isfinite().all(dim=1)).nonzero()[:, 0].tolist()),
        tuple(evaluations.history), plan.reference, facts,
    )  # fmt: skip


class _ConditionalUpdate:
    """The step of a conditional model, and the state that it changes."""

    def __init__(self, plan: FrontPlan, algorithm: FrontAlgorithm, model: ConditionalModel, steps: int) -> None:
        self.plan, self.algorithm, self.model, self.steps = plan, algorithm, model, steps
        self.losses_of = Losses(plan.workload, model.template)
        self.trained: list[Tensor] = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = plan.optimizer(self.trained)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(combined_seed(plan.seed, 3))
        self.has_skipped = False  # whether a step was skipped, of which the user was warned

    def state(self) -> dict[str, Any]:
        """All values that determine the following steps, for :meth:`load`."""
        return {
            MODEL: self.model.state_dict(),
            "template": self.model.template.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores a state."""
        self.model.load_state_dict(state[MODEL])
        self.model.template.load_state_dict(state["template"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def step(self, number: int, batch: Batch) -> StepStatistics:
        """One step, which is skipped where a loss or a gradient is not finite.

        Args:
            number: index of the step in the training.
            batch: one part per stream.
        """
        progress = number / self.steps
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.plan.factor(progress)
        drawn = self.algorithm.draw(len(self.plan.workload.tasks), self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        buffers = [(value, value.clone()) for value in self.model.template.buffers()]
        rows, seed = [], combined_seed(self.plan.seed, 1, number)
        for preference in drawn:
            with GLOBAL_GENERATOR:
                torch.manual_seed(seed)
                rows.append(self.model.losses(self.losses_of, batch, preference))
        present = torch.tensor(self.losses_of.present)
        if not bool(present.any()):
            return StepStatistics({GRADIENTS: 0})
        losses, preferences = torch.stack(rows)[:, present.to(rows[0].device)], drawn[:, present]
        preferences = preferences / preferences.sum(dim=1, keepdim=True).clamp_min(1e-300)
        evaluations = losses.numel() if self.algorithm.needs_gramian else len(losses)
        if self._backward(losses, preferences, progress):
            self.optimizer.step()
        else:
            if not self.has_skipped:
                self.has_skipped = True
                member = copy.deepcopy(self.model.template)
                self.model.fill(member, drawn[0])
                warn_skipped(number, broken_tasks(self.plan.workload, member, batch, seed))
            for value, before in buffers:
                value.copy_(before)
        return StepStatistics({GRADIENTS: evaluations})

    def _backward(self, losses: Tensor, preferences: Tensor, progress: float) -> bool:
        """Computes the gradients; whether they and the (W, T) losses are finite."""
        if self.algorithm.needs_gramian:
            weights = self._weights(losses, preferences, progress)
            if weights is None:
                return False
            objective = (weights.to(losses) * losses).sum()
        else:
            objective = self.algorithm.objective(losses, preferences.to(losses))
        torch.autograd.backward(objective)
        return all_finite([losses.detach(), *(value.grad for value in self.trained)])

    def _weights(self, losses: Tensor, preferences: Tensor, progress: float) -> Tensor | None:
        """(W, T) weights from the inner products of the gradients of the trained parameters; None if these are not finite."""
        result = []
        for row, preference in zip(losses, preferences, strict=True):
            streams = [torch.autograd.grad(loss, self.trained, retain_graph=True, allow_unused=True) for loss in row]
            own = row.detach().cpu().double()[None]
            gramian = inner_products(streams, 1)
            if not bool(own.isfinite().all() & gramian.isfinite().all()):
                return None
            evidence = FrontEvidence((0,), own, preference[None], gramian, own, preference[None], progress)
            result.append(self.algorithm.weights(evidence)[0])
        return torch.stack(result)


def _inputs(batch: tuple[Samples, ...]) -> Any:
    shapes = {tuple(part.inputs.shape[1:2]) if isinstance(part.inputs, Tensor) else None for part in batch}
    return batch[0].inputs if len(shapes) == 1 else None


def _scores(plan: FrontPlan, model: ConditionalModel, given: Tensor, streams: tuple[Stream, ...]) -> FrontScores:
    losses, metrics = [], []
    member = copy.deepcopy(model.template)
    for row in given:
        model.fill(member, row)
        loss, found = score(plan.workload, member, streams, plan.batch_size)
        losses.append(loss)
        metrics.append(found)
    return torch.stack(losses), metrics
