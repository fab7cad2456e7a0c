"""N models with stacked parameters: losses and gradients of all of them, by vmap or by a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from paretorch.core.gradients.task_gradients import full_precision, to_device, to_host
from paretorch.core.option_checks import check_choice
from paretorch.pareto.models.autotune import autotune, verified
from paretorch.pareto.models.global_generator import GLOBAL_GENERATOR
from paretorch.pareto.models.members import Features, Losses, stacked
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch

BACKENDS = ("loop", "vmap", "vmap encoder", "vmap heads")
EXECUTIONS = ("auto", "measured", *BACKENDS)
LARGEST = 1 << 20  # parameters of a model, up to which one batched product is faster than N products


Weigh = Callable[[tuple[int, ...], Tensor, Tensor | None], Tensor]


class Ensemble:
    """Models of one architecture, as stacked parameters.

    The loop stores the activations of one model at a time, and its results equal those of separate models bit for bit. vmap
    batches all members: linear layers become one batched product, which is 2-3 times as fast on the CPU; sums may be rounded
    differently. With ``"vmap encoder"`` or ``"vmap heads"`` the other part runs in a loop; activations of all members are stored.

    Args:
        workload: computes the losses.
        models: N of one architecture, with initial weights.
        execution: ``"loop"``, ``"vmap"``, ``"vmap encoder"``, ``"vmap heads"``; ``"auto"``: vmap for models of at most
            2^20 parameters that it can run with equal results, else the loop; ``"measured"``: the fastest on the first batch,
            which may differ between two calls.
        first: index of the first model in the front.

    Raises:
        ValueError: there is no model, or the execution is unknown.
    """

    def __init__(
        self, workload: Workload, models: Sequence[nn.Module], execution: str = "auto", first: int = 0
    ) -> None:
        check_choice("execution", execution, EXECUTIONS)
        if not models:
            raise ValueError("an ensemble has at least one model, got none")
        self.losses, self.features = Losses(workload, models[0]), Features(models[0])
        self.count = len(models)
        self.first = first
        self.trained, self.kept = stacked(models)
        self._buffers = [name for name, _ in models[0].named_buffers()]
        for value in self.trained.values():
            value.requires_grad_()
        self.execution = execution
        self.why = "asked for"

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, (N, ...) each."""
        return list(self.trained.values())

    @property
    def statistics(self) -> list[Tensor]:
        """The buffers, (N, ...) each, which the forward pass may change, such as those of BatchNorm."""
        return [self.kept[name] for name in self._buffers]

    def gradients(self, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        """Sets ``.grad`` of the stacked parameters to sum_t w_it dL_it / dtheta_i; None if no present task reaches them.

        Args:
            batch: one part per stream, the same for all members.
            seed: of the random numbers of the forward pass, which are the same for every member.
            weigh: a function of rows, losses (n, T) and inner products (n, T, T) or None that returns weights (n, T), of the
                present tasks.
            gramian: whether ``weigh`` needs inner products, which takes T backward passes instead of one.

        Returns:
            (N, T) losses without a graph, nan for absent tasks, and (N, T) weights, 0 for absent tasks.
        """
        if self.execution in ("auto", "measured"):
            self.execution, self.why = self._choose(batch, seed, weigh, gramian)
        try:
            return self._run(self.execution, batch, seed, weigh, gramian)
        except RuntimeError as error:
            if self.execution == "loop" or ("vmap" not in str(error) and "Batching rule" not in str(error)):
                raise
            raise RuntimeError(f"vmap cannot run this model: use execution='loop' or 'auto' ({error})") from error

    def _run(self, backend: str, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        with GLOBAL_GENERATOR, torch.random.fork_rng(devices=self._devices()):
            if backend == "loop":
                return self._by_loop(batch, seed, weigh, gramian)
            torch.manual_seed(seed)
            losses = partial(self._of_all, self.losses, batch)
            if backend == "vmap":
                found = losses(batched=True)
            else:
                features = self._of_all(self.features, batch, batched=backend == "vmap encoder")
                found = losses(features, batched=backend == "vmap heads")
            return self._together(found, weigh, gramian)

    def _devices(self) -> list[torch.device]:
        device = self.parameters[0].device
        return [device] if device.type == "cuda" else []

    def _by_loop(self, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        losses, weights = [], []
        for value in self.parameters:
            value.grad = None
        for member in range(self.count):
            own = {name: value.detach()[member].requires_grad_() for name, value in self.trained.items()}
            kept = {name: value[member] for name, value in self.kept.items()}
            torch.manual_seed(seed)
            found = functional_call(self.losses, {f"model.{k}": v for k, v in {**own, **kept}.items()}, (batch,))
            loss, weight, gradients = _weighed(
                found[None], self._present(), list(own.values()), (self.first + member,), weigh, gramian
            )
            for value, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is not None:
                    value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                    value.grad[member].copy_(gradient)
            losses.append(loss)
            weights.append(weight)
        return torch.cat(losses), torch.cat(weights)

    def _of_all(self, module: nn.Module, batch: Batch, features: Any = (), *, batched: bool) -> Any:
        """The stacked outputs of a module on a batch for all members, with the same random numbers."""

        def one(own: dict[str, Tensor], kept: dict[str, Tensor], *inputs: Any) -> Any:
            return functional_call(module, {f"model.{k}": v for k, v in {**own, **kept}.items()}, (batch, *inputs))

        inputs = (features,) if features else ()
        if batched:
            return vmap(one, randomness="same")(self.trained, self.kept, *inputs)
        # One graph node, whose backward stacks the gradients.
        own = {name: value.unbind() for name, value in self.trained.items()}
        found = []
        for member in range(self.count):
            last = member == self.count - 1  # the following module continues the random stream
            with nullcontext() if last else torch.random.fork_rng(devices=self._devices()):
                found.append(
                    one(
                        {name: values[member] for name, values in own.items()},
                        *tree_map(lambda value, member=member: value[member], (self.kept, *inputs)),
                    )
                )
        return tree_map(lambda *values: torch.stack(values), *found)

    def _together(self, found: Tensor, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        rows = tuple(range(self.first, self.first + self.count))
        losses, weights, gradients = _weighed(found, self._present(), self.parameters, rows, weigh, gramian)
        for value, gradient in zip(self.parameters, gradients, strict=True):
            # gradients of linear layers are transposed, which slows every later access
            value.grad = None if gradient is None else gradient.contiguous()
        return losses, weights

    def _present(self) -> Tensor:
        return torch.tensor(self.losses.present)

    def _choose(self, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[str, str]:
        """The backend by the rule, or the fastest one, and the reason; buffers and gradients are unchanged."""
        size = sum(value.numel() for value in self.parameters) // self.count
        if self.execution == "auto" and size > LARGEST:
            return "loop", f"a model has {size:,} parameters, more than {LARGEST:,}"
        before = {name: value.clone() for name, value in self.kept.items()}

        def restore() -> None:
            for name, value in before.items():
                self.kept[name].copy_(value)
            for parameter in self.parameters:
                parameter.grad = None

        def tried(backend: str) -> list[list[Tensor]]:
            restore()
            losses, _ = self._run(backend, batch, seed, weigh, gramian)
            gradients = [value.grad for value in self.parameters if value.grad is not None]
            return [[losses], gradients, *([value] for value in self.kept.values())]

        try:
            if self.execution == "measured":
                return autotune({backend: partial(tried, backend) for backend in BACKENDS})
            chosen, why = verified({backend: partial(tried, backend) for backend in ("loop", "vmap")})
            return (
                chosen,
                why or f"a model has {size:,} parameters, at most {LARGEST:,}, and the results of vmap are equal",
            )
        finally:
            restore()


def _weighed(
    found: Tensor, present: Tensor, parameters: list[Tensor], rows: tuple[int, ...], weigh: Weigh, gramian: bool
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Losses (n, T), weights (n, T) and combined gradients of n members' parameters, None for unreached ones."""
    index = to_device(present.nonzero()[:, 0], found.device)
    losses = torch.where(to_device(present, found.device), found.detach(), torch.nan)
    weights = torch.zeros_like(losses)
    if not len(index):
        return losses, weights, [None] * len(parameters)
    present_losses = found[:, index]
    if gramian:
        streams = [
            torch.autograd.grad(
                present_losses[:, t].sum(), parameters, retain_graph=t + 1 < len(index), allow_unused=True
            )
            for t in range(len(index))
        ]
        given = weigh(rows, present_losses.detach(), inner_products(streams, len(rows)))
        gradients = [_combined(pieces, given, like) for *pieces, like in zip(*streams, parameters, strict=True)]
    else:
        given = weigh(rows, present_losses.detach(), None)
        total = (given.to(present_losses) * present_losses).sum()
        gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    weights[:, index] = given.to(weights)
    return losses, weights, gradients


def inner_products(streams: Sequence[Sequence[Tensor | None]], members: int) -> Tensor:
    """(n, T, T) inner products in float64, summed over tensors.

    Args:
        streams: for each task, the gradients (n, ...) of each tensor; with one member, also without its dimension.
        members: n.
    """
    tasks = len(streams)
    result = torch.zeros(members, tasks, tasks, dtype=torch.float64)
    reaching: list[Tensor] = []
    products: list[Tensor] = []
    for pieces in zip(*streams, strict=True):
        here = [t for t in range(tasks) if pieces[t] is not None]
        if not here:
            continue
        flat = torch.stack([piece.reshape(members, -1) for piece in pieces if piece is not None], dim=1)
        reaching.append(torch.tensor(here))
        with full_precision(flat):
            products.append(flat @ flat.transpose(1, 2))
    for index, product in zip(reaching, to_host(products), strict=True):
        result[:, index[:, None], index[None, :]] += product
    return result


def _combined(pieces: list[Tensor | None], weights: Tensor, like: Tensor) -> Tensor | None:
    """sum_t w_t g_t of one tensor; with several members, its leading dimension is theirs."""
    if all(piece is None for piece in pieces):
        return None
    total = torch.zeros_like(like)
    for task, piece in enumerate(pieces):
        if piece is not None:
            share = weights[:, task].to(piece)
            total += piece * (share.reshape(-1, *[1] * (piece.ndim - 1)) if len(share) > 1 else share[0])
    return total
