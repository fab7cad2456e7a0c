"""N models trained at once: gradients by vmap or by a loop, any elementwise optimizer over stacked parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from paretorch.core.checks import one_of
from paretorch.pareto.models.autotune import autotune
from paretorch.pareto.models.members import Features, Losses, stacked
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch

WAYS = ("loop", "vmap", "vmap encoder", "vmap heads")
EXECUTIONS = ("auto", *WAYS)


Weigh = Callable[[tuple[int, ...], Tensor, Tensor | None], Tensor]


class Ensemble:
    """Models of one architecture, as stacked parameters.

    In the loop, activations of one model are alive at a time, and each member's numbers are those of a model trained alone, bit
    for bit. By vmap all members pass as one: linear layers become one batched product, which is 2-3 times as fast on the CPU;
    sums may be rounded differently. Where it serves only the encoder or only the heads, the other passes in a loop, and the
    activations of all members are alive as they are by vmap.

    Args:
        workload: whose losses.
        models: N of one architecture, with the weights to start from.
        execution: ``"loop"``, ``"vmap"``, ``"vmap encoder"``, ``"vmap heads"``, or ``"auto"``: what a measurement on the first
            batch says.
        first: the number of the first model, where these are some of a front's.

    Raises:
        ValueError: no model, or an unknown execution.
    """

    def __init__(
        self, workload: Workload, models: Sequence[nn.Module], execution: str = "auto", first: int = 0
    ) -> None:
        one_of("execution", execution, EXECUTIONS)
        if not models:
            raise ValueError("an ensemble has at least one model, got none")
        self.losses, self.features = Losses(workload, models[0]), Features(models[0])
        self.count = len(models)
        self.first = first
        self.trained, self.kept = stacked(models)
        for value in self.trained.values():
            value.requires_grad_()
        self.execution = execution
        self.why = "asked for"

    @property
    def parameters(self) -> list[Tensor]:
        """The trained ones, (N, ...) each."""
        return list(self.trained.values())

    def gradients(self, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        """Fills ``.grad`` of the stacked parameters with sum_t w_it dL_it / dtheta_i; None where no present task reaches them.

        Args:
            batch: one part per stream, the same for all members.
            seed: of the random numbers of the forward: every member draws the same, as a model trained alone would.
            weigh: rows, (n, T) losses and, where wanted, (n, T, T) inner products -> (n, T) weights; the tasks present only.
            gramian: whether ``weigh`` wants the inner products, which takes T backwards instead of one.

        Returns:
            (N, T) losses without a graph, absent tasks nan, and (N, T) weights, absent tasks 0.
        """
        if self.execution == "auto":
            self.execution, self.why = self._fastest(batch, seed, weigh, gramian)
        try:
            return self._run(self.execution, batch, seed, weigh, gramian)
        except RuntimeError as error:
            if self.execution == "loop" or ("vmap" not in str(error) and "Batching rule" not in str(error)):
                raise
            raise RuntimeError(f"vmap cannot run this model: use execution='loop' or 'auto' ({error})") from error

    def _run(self, way: str, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng(devices=self._devices()):
            if way == "loop":
                return self._by_loop(batch, seed, weigh, gramian)
            torch.manual_seed(seed)
            losses = partial(self._of_all, self.losses, batch)
            if way == "vmap":
                found = losses(batched=True)
            else:
                features = self._of_all(self.features, batch, batched=way == "vmap encoder")
                found = losses(features, batched=way == "vmap heads")
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
        """What a module gives for a batch with every member's parameters, stacked; every member draws the same numbers."""

        def one(own: dict[str, Tensor], kept: dict[str, Tensor], *given: Any) -> Any:
            return functional_call(module, {f"model.{k}": v for k, v in {**own, **kept}.items()}, (batch, *given))

        given = (features,) if features else ()
        if batched:
            return vmap(one, randomness="same")(self.trained, self.kept, *given)
        own = {name: value.unbind() for name, value in self.trained.items()}  # one node, whose backward stacks
        found = []
        for member in range(self.count):
            last = member == self.count - 1  # what comes next draws on from where the last one stopped
            with nullcontext() if last else torch.random.fork_rng(devices=self._devices()):
                found.append(
                    one(
                        {name: values[member] for name, values in own.items()},
                        *tree_map(lambda value, member=member: value[member], (self.kept, *given)),
                    )
                )
        return tree_map(lambda *values: torch.stack(values), *found)

    def _together(self, found: Tensor, weigh: Weigh, gramian: bool) -> tuple[Tensor, Tensor]:
        rows = tuple(range(self.first, self.first + self.count))
        losses, weights, gradients = _weighed(found, self._present(), self.parameters, rows, weigh, gramian)
        for value, gradient in zip(self.parameters, gradients, strict=True):
            # those of linear layers come transposed, and slow every look at them
            value.grad = None if gradient is None else gradient.contiguous()
        return losses, weights

    def _present(self) -> Tensor:
        return torch.tensor(self.losses.present)

    def _fastest(self, batch: Batch, seed: int, weigh: Weigh, gramian: bool) -> tuple[str, str]:
        """Which way, and why; leaves buffers and gradients as they were."""
        before = {name: value.clone() for name, value in self.kept.items()}

        def restore() -> None:
            for name, value in before.items():
                self.kept[name].copy_(value)
            for parameter in self.parameters:
                parameter.grad = None

        def tried(way: str) -> list[list[Tensor]]:
            restore()
            losses, _ = self._run(way, batch, seed, weigh, gramian)
            gradients = [value.grad for value in self.parameters if value.grad is not None]
            return [[losses], gradients, *([value] for value in self.kept.values())]

        try:
            return autotune({way: partial(tried, way) for way in WAYS})
        finally:
            restore()


def _weighed(
    found: Tensor, present: Tensor, parameters: list[Tensor], rows: tuple[int, ...], weigh: Weigh, gramian: bool
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Losses (n, T), weights (n, T) and the combined gradients of some members' parameters, None where no task reaches one."""
    there = present.nonzero()[:, 0].to(found.device)
    losses = torch.where(present.to(found.device), found.detach(), torch.nan)
    weights = torch.zeros_like(losses)
    if not len(there):
        return losses, weights, [None] * len(parameters)
    seen = found[:, there]
    if gramian:
        streams = [
            torch.autograd.grad(seen[:, t].sum(), parameters, retain_graph=t + 1 < len(there), allow_unused=True)
            for t in range(len(there))
        ]
        given = weigh(rows, seen.detach(), inner_products(streams, len(rows)))
        gradients = [_combined(pieces, given, like) for *pieces, like in zip(*streams, parameters, strict=True)]
    else:
        given = weigh(rows, seen.detach(), None)
        total = (given.to(seen) * seen).sum()
        gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    weights[:, there] = given.to(weights)
    return losses, weights, gradients


def inner_products(streams: Sequence[Sequence[Tensor | None]], members: int) -> Tensor:
    """(n, T, T) inner products in float64, tensor by tensor.

    Args:
        streams: for each task, the gradients (n, ...) of each tensor; with one member, also without its dimension.
        members: n.
    """
    tasks = len(streams)
    result = torch.zeros(members, tasks, tasks, dtype=torch.float64)
    for pieces in zip(*streams, strict=True):
        here = [t for t in range(tasks) if pieces[t] is not None]
        if not here:
            continue
        flat = torch.stack([piece.reshape(members, -1) for piece in pieces if piece is not None], dim=1)
        index = torch.tensor(here)
        result[:, index[:, None], index[None, :]] += (flat @ flat.transpose(1, 2)).double().cpu()
    return result


def _combined(pieces: list[Tensor | None], weights: Tensor, like: Tensor) -> Tensor | None:
    """sum_t w_t g_t of one tensor, whose leading dimension is that of the members where there are several."""
    if all(piece is None for piece in pieces):
        return None
    total = torch.zeros_like(like)
    for task, piece in enumerate(pieces):
        if piece is not None:
            share = weights[:, task].to(piece)
            total += piece * (share.reshape(-1, *[1] * (piece.ndim - 1)) if len(share) > 1 else share[0])
    return total
