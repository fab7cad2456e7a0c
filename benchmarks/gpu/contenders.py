"""One training step, forward and gradients, as plain torch, Paretorch and TorchJD do it, under bfloat16 autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from models import Case
from torch import Tensor

import paretorch as pt

Step = Callable[[], object]


def forward(case: Case, branches_of: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of a forward under autocast."""
    with torch.autocast(case.inputs.device.type, dtype=torch.bfloat16):
        return case.losses(branches_of(case.encoder(case.inputs)))


def same(case: Case) -> Callable[[Tensor], dict[str, Tensor]]:
    """The same features for every task."""
    return lambda features: dict.fromkeys(case.tasks, features)


def plain(case: Case) -> Step:
    """The backward of the sum of the losses."""
    return lambda: total(forward(case, same(case))).backward()


def fork(case: Case, method: pt.Method | None = None) -> Step:
    """A Fork on the features."""
    layer = pt.Fork(pt.MGDA() if method is None else method, case.tasks).to(case.inputs.device)
    if layer.needs_losses:
        return lambda: total(layer.losses(forward(case, layer))).backward()
    return lambda: total(forward(case, layer)).backward()


def balancer(case: Case, by_total: bool = False) -> Step:
    """A Balancer on all shared parameters."""
    balanced_by = pt.Balancer(pt.UPGrad(), case.tasks)
    if by_total:
        return lambda: balanced_by.total(forward(case, same(case))).backward()
    return lambda: balanced_by.backward(forward(case, same(case)))


def torchjd(case: Case) -> Step:
    """The Jacobian on the shared parameters, in TorchJD."""
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator, shared = UPGrad(), list(case.encoder.parameters())

    def step() -> None:
        with torch.autocast(case.inputs.device.type, dtype=torch.bfloat16):
            features = case.encoder(case.inputs)
            losses = list(case.losses(dict.fromkeys(case.tasks, features)).values())
        mtl_backward(losses, features=features, parallel_chunk_size=1)
        jac_to_grad(shared, aggregator)

    return step


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of the losses."""
    return torch.stack(list(losses.values())).sum()


CONTENDERS: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "fork": fork,
    "balancer": balancer,
    "torchjd": torchjd,
}
