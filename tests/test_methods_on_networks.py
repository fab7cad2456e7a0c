"""Every method in Fork and Balancer, on gradients in every precision: finite, of a known status, and true to its claims."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from matrices import gaussian
from methods import METHODS, MethodEntry
from paretorch.core.contract import Need, Status

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
TASKS = ("0", "1", "2")
GENERAL = [entry for entry in METHODS if not isinstance(entry.method, pt.Static)]
FORKED = [entry for entry in GENERAL if entry.method.features and entry.method.batches == 1]
STEPS = 3


class Nets(nn.Module):
    """A linear encoder and heads, small enough to work in float16 on a CPU; losses are summed in float32 or better."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Linear(4, 5, dtype=dtype)
            self.heads = nn.ModuleDict({task: nn.Linear(5, 2, dtype=dtype) for task in TASKS})
        self.dtype = dtype

    def losses(self, branch: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        wide = torch.promote_types(self.dtype, torch.float32)
        return {
            task: (head(branch[task]).to(wide) - 2 * gaussian(6, 2, seed + place).to(wide)).square().mean()
            for place, (task, head) in enumerate(self.heads.items())
        }


def gaussian_inputs(dtype: torch.dtype, seed: int) -> Tensor:
    return gaussian(6, 4, seed).to(dtype)


def steps_through_fork(
    method: pt.Method[Any], dtype: torch.dtype, seed: int, steps: int
) -> tuple[pt.Balance, Tensor, Tensor]:
    """The last of some steps through a Fork: what happened, the (n,) gradient sent on, and the (T, n) task gradients."""
    net, fork = Nets(dtype), pt.Fork(method, TASKS)
    for step in range(steps):
        z = net.encoder(gaussian_inputs(dtype, seed + step)).detach().requires_grad_()
        losses = net.losses(fork(z * 1), 10 * step)
        sum(fork.losses(losses).values(), start=torch.zeros(())).backward()
        if method.observes:
            fork.observe({task: loss.detach() for task, loss in losses.items()})
    own = z.detach().requires_grad_()
    rows = [
        torch.autograd.grad(loss, own, retain_graph=True)[0].flatten()
        for loss in net.losses(dict.fromkeys(TASKS, own), 10 * (steps - 1)).values()
    ]
    assert fork.balance is not None
    assert z.grad is not None
    return fork.balance, z.grad.flatten(), torch.stack(rows)


def balanced(method: pt.Method[Any], dtype: torch.dtype, seed: int, steps: int) -> tuple[pt.Balance, Tensor, Tensor]:
    """The last of some steps of a Balancer, as :func:`forked`, on the encoder's parameters."""
    net, balancer = Nets(dtype), pt.Balancer(method, TASKS)
    parameters = list(net.encoder.parameters())
    for step in range(steps):
        net.zero_grad()

        def once(step: int = step) -> dict[str, Tensor]:
            return net.losses(dict.fromkeys(TASKS, net.encoder(gaussian_inputs(dtype, seed + step))), 10 * step)

        losses = once()
        balance = balancer.backward(losses, others=[once() for _ in range(method.batches - 1)])
        if method.observes:
            balancer.observe({task: loss.detach() for task, loss in losses.items()})
    update = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, retain_graph=True)])
        for loss in once().values()
    ]
    return balance, update, torch.stack(rows)


STEPS_BY = {"fork": steps_through_fork, "balancer": balanced}
CASES = [(by, entry) for by in STEPS_BY for entry in (FORKED if by == "fork" else GENERAL)]
with_fork_and_balancer = pytest.mark.parametrize(("by", "entry"), CASES, ids=lambda part: getattr(part, "name", part))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@with_fork_and_balancer
@pytest.mark.sampled(3)
def test_method_steps_are_finite_in_every_precision(by: str, entry: MethodEntry, dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        if not entry.exact:
            warnings.filterwarnings("ignore", message=".*did not reach its tolerance")
        balance, update, _ = STEPS_BY[by](entry.method, dtype, 0, STEPS)
    assert bool(torch.isfinite(update).all())
    assert update.dtype is dtype
    assert bool(update.any())
    assert balance.status in set(entry.ends) - {Status.STATIONARY}
    if balance.weights is not None:
        assert bool(torch.isfinite(balance.weights).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("by", "entry"),
    [
        (by, entry)
        for by, entry in CASES
        if entry.conflict_free and not isinstance(entry.method, pt.CRMOGM | pt.Momentum)
    ],
    ids=lambda part: getattr(part, "name", part),
)
def test_conflict_free_method_has_no_measured_conflict(by: str, entry: MethodEntry, dtype: torch.dtype) -> None:
    """In low precision the update itself is rounded: a cosine may miss zero by the spacing of its numbers."""
    balance, update, rows = STEPS_BY[by](entry.method, dtype, 7, 1)
    update, rows = update.double(), rows.double()
    cosines = (rows @ update) / rows.norm(dim=1) / update.norm()
    assert balance.status is Status.SOLVED
    assert cosines.min() >= -max(1e-7, float(torch.finfo(dtype).eps)), cosines


@with_fork_and_balancer
def test_method_steps_are_deterministic(by: str, entry: MethodEntry) -> None:
    one, other = (STEPS_BY[by](entry.method, torch.float32, 3, STEPS)[1] for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("entry", [entry for entry in GENERAL if entry not in FORKED], ids=lambda entry: entry.name)
def test_fork_refuses_methods_for_the_balancer_alone(entry: MethodEntry) -> None:
    with pytest.raises(ValueError, match="Balancer"):
        pt.Fork(entry.method, TASKS)


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
def test_method_needs_are_one_kind_of_evidence_and_optionally_losses(entry: MethodEntry) -> None:
    kinds = entry.method.needs & (Need.GRAMIAN | Need.JACOBIAN)
    assert kinds in (Need(0), Need.GRAMIAN, Need.JACOBIAN)
    assert kinds or entry.method.needs is Need.LOSSES
