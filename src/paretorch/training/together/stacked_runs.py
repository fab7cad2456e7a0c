"""The models and optimizers of several runs, stacked, and their joint step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from paretorch.core.fork.fork import Fork
from paretorch.pareto.models.members import Features, stacked
from paretorch.training.names.optimizers import find_optimizer
from paretorch.training.resolved_run import ResolvedRun
from paretorch.training.schedule import Schedule
from paretorch.training.together.conditions import SeparateError
from paretorch.training.updates import StepRecord
from paretorch.workloads.forward import Batch, head_output, outputs_of
from paretorch.workloads.streams import Samples, steps_per_epoch

TOLERANCE = 1e-4  # relative, of the losses of the first batch against those of separate models

Losses = Mapping[str, Tensor]  # scalars by task


class StackedRuns:
    """S runs that differ in the seed alone.

    The parameters and buffers of their models become views of stacked tensors, so that a step of the stacked optimizer moves
    all models, which evaluation and checkpoints read as ever. The balancer of each run receives the features of its model.

    Args:
        runs: S resolved runs, whose models and optimizers have the state from which training starts.
    """

    def __init__(self, runs: Sequence[ResolvedRun]) -> None:
        self.runs, first = runs, runs[0]
        self.workload, self.model, self.clip = first.workload, first.model, first.run.clip
        self.models = [each.model for each in runs]
        self.trained, self.kept = stacked(self.models)
        for name, values in {**self.trained, **self.kept}.items():
            for model, value in zip(self.models, values, strict=True):
                _tensor(model, name).data = value
        for value in self.trained.values():
            value.requires_grad_()
        run = first.run
        self.optimizer = find_optimizer(run.optimizer, run.optimizer_options)(self.trained.values())  # type: ignore[arg-type]
        steps = run.epochs * steps_per_epoch(first.splits.train, run.batch_size)
        self.schedule = Schedule(self.optimizer, run.schedule, run.warmup, steps, run.epochs)
        self.forks = [each.balancer for each in runs if isinstance(each.balancer, Fork)]
        self.batched_losses = True  # by vmap; else run by run, where their computation depends on the labels
        self._load_optimizers()

    # --- the state of the optimizers -----------------------------------------------------------------------------------------

    def _own_parameters(self, model: nn.Module) -> list[Tensor]:
        return [_tensor(model, name) for name in self.trained]

    def _load_optimizers(self) -> None:
        """Stacks the states of the runs' optimizers, which a checkpoint may have restored."""
        own = [[each.optimizer.state[p] for p in self._own_parameters(each.model)] for each in self.runs]
        for place, parameter in enumerate(self.trained.values()):
            states = [each[place] for each in own]
            if any(states):
                self.optimizer.state[parameter] = {name: _joined([s[name] for s in states]) for name in states[0]}

    def save_optimizers(self) -> None:
        """Gives each run's optimizer its part of the state."""
        for seed, each in enumerate(self.runs):
            for parameter, own in zip(self.trained.values(), self._own_parameters(each.model), strict=True):
                state = self.optimizer.state[parameter]
                each.optimizer.state[own] = {
                    name: value[seed] if _is_stacked(value, parameter) else _copied(value)
                    for name, value in state.items()
                }

    # --- the step --------------------------------------------------------------------------------------------------------

    def step(self, number: int, batches: Sequence[Batch]) -> list[StepRecord]:
        """One step of all runs.

        Args:
            number: of the step, from 0.
            batches: of each run.
        """
        self.schedule.before(number)
        for each in self.runs:
            each.schedule.before(number)
        batch = joined(batches)
        before = self._copies() if self._observes else {}
        self.optimizer.zero_grad(set_to_none=True)
        own = self.losses(batch, self._branches if self.forks else None)
        if any(each.keys() != set(self.runs[0].tasks) for each in own):
            raise SeparateError("a task has no label in a batch, and its head is not to move")
        recorded = own
        if self.forks:
            pairs = zip(self.forks, own, strict=True)
            recorded = [fork.losses(each) if fork.needs_losses else each for fork, each in pairs]
        torch.autograd.backward(reduce(torch.add, [loss for each in recorded for loss in each.values()]))
        if self.clip is not None:
            self._clip(self.clip)
        self.optimizer.step()
        if self._observes:
            self._observe(batch, before)
        detached = [{task: loss.detach() for task, loss in each.items()} for each in own]
        if not self.forks:
            return [StepRecord(each) for each in detached]
        pairs = zip(self.forks, detached, strict=True)
        return [StepRecord(each, fork.deferred_balance()) for fork, each in pairs]

    @property
    def _observes(self) -> bool:
        return any(fork.method.observes for fork in self.forks)

    @torch.no_grad()
    def _observe(self, batch: Batch, before: dict[str, Tensor]) -> None:
        """Reports the losses of the same batch after the step; the buffers stay as the step left them."""
        after = self._copies()
        self._restore(before)
        losses = self.losses(batch)
        self._restore(after)
        for fork, each in zip(self.forks, losses, strict=True):
            fork.observe(each)

    def _copies(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.kept.items()}

    def _restore(self, kept: Mapping[str, Tensor]) -> None:
        for name, value in kept.items():
            self.kept[name].copy_(value)

    def losses(self, batch: Batch, branches: Callable[[tuple[Any, ...]], dict[str, Any]] | None = None) -> list[Losses]:
        """The losses of each run by task.

        Args:
            batch: stacked, see :func:`joined`.
            branches: gives each task's stacked features; None: the features are the input of the heads.
        """
        features = self._of_all(Features(self.model), batch)
        own = dict.fromkeys(self.runs[0].tasks, features) if branches is None else branches(features)
        outputs = self._of_all(_Heads(self.model), batch, own)
        targets = {task: target for samples in batch for task, target in samples.targets.items() if task in outputs}
        if self.batched_losses:
            found = vmap(self.workload.losses, randomness="error")(outputs, targets)
            return [{task: values[seed] for task, values in found.items()} for seed in range(len(self.runs))]
        parts = [tree_map(lambda value, seed=seed: value[seed], (outputs, targets)) for seed in range(len(self.runs))]
        return [self.workload.losses(*each) for each in parts]

    def _branches(self, features: tuple[Any, ...]) -> dict[str, Any]:
        """Each task's features, stacked: those of each run through its own Fork."""
        is_single = len(features) == 1
        found = []
        for seed, fork in enumerate(self.forks):
            own = tree_map(lambda value, seed=seed: value[seed], features)
            found.append(fork(own[0] if is_single else own))
        together = {
            task: tree_map(lambda *values: torch.stack(values), *(each[task] for each in found)) for task in found[0]
        }
        return {task: (value,) if is_single else value for task, value in together.items()}

    def _of_all(self, module: nn.Module, batch: Batch, *inputs: Any) -> Any:
        """The stacked outputs of a module for all runs."""
        data = tuple((samples.inputs, dict(samples.targets)) for samples in batch)
        sizes = [samples.size for samples in batch]

        def one(own: dict[str, Tensor], kept: dict[str, Tensor], data: Any, inputs: Any) -> Any:
            samples = tuple(Samples(x, y, size) for (x, y), size in zip(data, sizes, strict=True))
            return functional_call(module, {f"model.{k}": v for k, v in {**own, **kept}.items()}, (samples, *inputs))

        return vmap(one, randomness="error")(self.trained, self.kept, data, inputs)

    @torch.no_grad()
    def _clip(self, largest: float) -> None:
        """Clips the gradient of each run to a norm, as ``torch.nn.utils.clip_grad_norm_``."""
        gradients = [value.grad for value in self.trained.values() if value.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        factors = (largest / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def check(self, batches: Sequence[Batch]) -> None:
        """Checks that the stacked models give the losses of the separate ones; the buffers are restored.

        Raises:
            SeparateError: they do not, or cannot be batched, or draw random numbers.
        """
        before = self._copies()
        random = torch.random.get_rng_state()
        try:
            separate = [
                self.workload.losses(*outputs_of(model, batch))
                for model, batch in zip(self.models, batches, strict=True)
            ]
            if not torch.equal(random, torch.random.get_rng_state()):
                raise SeparateError("the forward pass draws random numbers")
            self._restore(before)
            batch = joined(batches)
            try:
                found = self.losses(batch)
            except (RuntimeError, ValueError):  # control flow that depends on labels
                self.batched_losses = False
                found = self.losses(batch)
        except RuntimeError as error:
            raise SeparateError(f"vmap cannot run the model ({str(error).splitlines()[0]})") from error
        finally:
            torch.random.set_rng_state(random)
            self._restore(before)
        for each, expected in zip(found, separate, strict=True):
            for task, value in expected.items():
                if task not in each or not torch.isclose(each[task], value, rtol=TOLERANCE, atol=TOLERANCE):
                    raise SeparateError(f"vmap gives another loss of {task!r}")


class _Heads(nn.Module):
    """The outputs of each task's head on its features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, features: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        heads: Any = self.model.heads
        return {
            task: head_output(heads, task, features[task][index])
            for index, samples in enumerate(batch)
            for task in samples.targets
            if task in heads
        }


def joined(batches: Sequence[Batch]) -> Batch:
    """The batches of S runs as one, whose tensors have a first dimension S.

    Raises:
        SeparateError: the batches have different shapes.
    """
    found = []
    for parts in zip(*batches, strict=True):
        try:
            inputs, targets = tree_map(
                lambda *values: torch.stack(values), *((part.inputs, dict(part.targets)) for part in parts)
            )
        except (RuntimeError, ValueError) as error:
            raise SeparateError("the batches of different seeds have different shapes") from error
        found.append(Samples(inputs, targets, parts[0].size))
    return tuple(found)


def _tensor(model: nn.Module, name: str) -> Tensor:
    module, _, own = name.rpartition(".")
    found: Tensor = getattr(model.get_submodule(module), own)
    return found


def _is_stacked(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _joined(values: Sequence[Any]) -> Any:
    """The states of S optimizers for one parameter: tensors like the parameter are stacked, counters are equal."""
    first = values[0]
    if isinstance(first, Tensor) and first.dim():
        return torch.stack(list(values))
    return _copied(first)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
