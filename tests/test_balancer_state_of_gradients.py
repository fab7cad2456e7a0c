"""Gradients in the state of a Balancer, loss scales, further batches, and the factors of heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.core.contract import Method

F64 = torch.float64
UPDATES: list[Method[Any]] = [
    pt.MoCo(), pt.DBMTL(), pt.ExcessMTL(), pt.ConFIGMomentum(), pt.Momentum(pt.CAGrad()), pt.Momentum(pt.LogLosses(pt.MGDA())),
    pt.LogLosses(pt.GradDrop()), pt.LogLosses(pt.Momentum(pt.MGDA())),
]  # fmt: skip


class PartlySharedNet(nn.Module):
    """A first layer that all share, a second that only a and b share, and heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4, dtype=F64), nn.Linear(4, 4, dtype=F64)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1, dtype=F64) for task in "abc"})

    def losses(self, tasks: str, seed: int = 0) -> dict[str, Tensor]:
        x = torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(seed))
        z = self.first(x).tanh()
        features = {"a": self.second(z), "b": self.second(z), "c": z}
        return {
            task: (self.heads[task](features[task]) - i - 1).square().mean()
            for i, task in enumerate("abc")
            if task in tasks
        }

    def gradients(self) -> dict[str, Tensor]:
        found = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}
        self.zero_grad()
        return found


@pytest.mark.parametrize("method", UPDATES, ids=repr)
def test_balancer_direction_is_independent_of_a_changing_loss_scale(method: Method[Any]) -> None:
    plain, scaled = PartlySharedNet(), PartlySharedNet()
    one, other = pt.Balancer(method, tuple("abc")), pt.Balancer(method, tuple("abc"))
    for step, scale in enumerate((2.0**16, 2.0**16, 2.0**15, 2.0**14)):
        one.backward(plain.losses("abc", step))
        other.factor = scale
        other.backward({task: scale * loss for task, loss in scaled.losses("abc", step).items()})
        expected, found = plain.gradients(), scaled.gradients()
        for name, gradient in expected.items():
            assert torch.allclose(found[name] / scale, gradient, rtol=1e-9, atol=1e-12), (name, step)


def test_fork_direction_is_independent_of_a_changing_loss_scale() -> None:
    found = []
    for scale in (1.0, 2.0**16):
        net, fork = PartlySharedNet(), pt.Fork(pt.LogLosses(pt.GradDrop()), ("a", "b"))
        branch = fork(net.first(torch.ones(3, 4, dtype=F64)))
        losses = fork.losses({task: net.heads[task](branch[task]).square().mean() for task in "ab"})
        (sum(losses.values()) * scale).backward()  # type: ignore[union-attr]
        found.append({name: gradient / scale for name, gradient in net.gradients().items()})
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-12), name


REMEMBER = [method for method in UPDATES if not isinstance(method, pt.LogLosses)]


@pytest.mark.filterwarnings("ignore:the gradients that")
@pytest.mark.parametrize("method", REMEMBER, ids=repr)
def test_stored_gradients_keep_their_length_while_a_task_is_absent(method: Method[Any]) -> None:
    """Without b, nothing shows that the second layer is shared; what was compared before is compared again."""
    net, balancer = PartlySharedNet(), pt.Balancer(method, tuple("abc"))
    sizes = []
    for step, tasks in enumerate(("abc", "ac", "c", "abc")):
        balancer.backward(net.losses(tasks, step))
        sizes.append(
            {value.shape[1] for name, value in balancer.named_buffers() if "state_" in name and value.ndim == 2}
        )
        assert all(bool(gradient.isfinite().all()) for gradient in net.gradients().values())
    assert sizes == [{40}] * 4


@pytest.mark.parametrize("method", REMEMBER, ids=repr)
def test_stored_gradients_of_other_parameters_are_reset(method: Method[Any]) -> None:
    """One layer is trained, then the other, of the same size: means of the first are none of the second."""
    net = PartlySharedNet()
    both = nn.ModuleList([net.first, net.second])
    balancer, fresh = pt.Balancer(method, ("a", "b"), shared=both), pt.Balancer(method, ("a", "b"), shared=net.second)
    net.second.requires_grad_(False)
    balancer.backward(net.losses("ab"))
    net.gradients()
    net.first.requires_grad_(False)
    net.second.requires_grad_(True)
    with pytest.warns(UserWarning, match="the state is reset"):
        balancer.backward(net.losses("ab", 1))
    found = net.gradients()
    fresh.backward(net.losses("ab", 1))
    for name, gradient in net.gradients().items():
        assert torch.equal(found[name], gradient), name


def test_balancer_with_one_loss_per_step_requires_shared() -> None:
    net = PartlySharedNet()
    with pytest.raises(ValueError, match="does not show which parameters it shares"):
        pt.Balancer(pt.ConFIGMomentum(), ("a", "b")).backward(net.losses("a"))
    balancer = pt.Balancer(pt.ConFIGMomentum(), ("a", "b"), shared=net.first)
    for step, task in enumerate("abab"):
        loss = net.losses(task, step)
        (own,) = torch.autograd.grad(loss[task], net.heads[task].weight, retain_graph=True)  # type: ignore[arg-type]
        balancer.backward(loss)
        assert torch.equal(net.gradients()[f"heads.{task}.weight"], own)


def test_balancer_compares_a_layer_that_was_frozen_at_construction_once_it_trains() -> None:
    net = PartlySharedNet()
    net.first.requires_grad_(False)
    balancer = pt.Balancer(pt.UPGrad(), shared=nn.ModuleList([net.first, net.second]))
    balancer.backward(net.losses("ab"))
    net.first.requires_grad_(True)
    net.gradients()
    found = balancer.backward(net.losses("ab")).gramian
    explicit = pt.Balancer(pt.UPGrad(), shared=[*net.first.parameters(), *net.second.parameters()])
    expected = explicit.backward(net.losses("ab")).gramian
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)


SEVERAL: list[Callable[[], Method[Any]]] = [pt.MoDo, lambda: pt.SDMGrad(batches=3)]


@pytest.mark.parametrize("make", SEVERAL)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("batch", [0, 1])
def test_balancer_detects_nonfinite_losses_of_further_batches(
    make: Callable[[], Method[Any]], wrong: float, batch: int
) -> None:
    def broken(net: PartlySharedNet) -> list[dict[str, Tensor]]:
        others = [net.losses("abc", 1), net.losses("abc", 2)]
        others[batch]["b"] = others[batch]["b"] * wrong
        return others

    net, balancer = PartlySharedNet(), pt.Balancer(make())
    balancer.backward(net.losses("abc"), others=[net.losses("abc", 1), net.losses("abc", 2)])
    net.zero_grad(set_to_none=True)
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    with pytest.raises(FloatingPointError, match="'b'"):
        balancer.backward(net.losses("abc"), others=broken(net))
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in balancer.state_dict().items() if name != "steps")
    balancer.nonfinite = "skip"
    balance = balancer.backward(net.losses("abc"), others=broken(net))
    assert balancer.skipped == {"b": 1}
    assert balance.weights is not None
    assert float(balance.weights[1]) == 0.0
    assert all(bool(gradient.isfinite().all()) for gradient in net.gradients().values())


@pytest.mark.parametrize("make", SEVERAL)
def test_task_is_present_if_it_is_in_all_batches(make: Callable[[], Method[Any]]) -> None:
    net, balancer = PartlySharedNet(), pt.Balancer(make(), tuple("abc"))
    balance = balancer.backward(net.losses("abc"), others=[net.losses("ab", 1), net.losses("a", 2)])
    assert balance.present is not None
    assert balance.present.tolist() == [True, False, False]
    assert balance.weights is not None
    assert balance.weights.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("method", [pt.LogLosses(pt.MGDA()), pt.IMTL(), pt.CRMOGM(pt.LogLosses(pt.UPGrad()))], ids=repr)
def test_balancer_reused_weights_include_the_factors_of_the_heads(method: Method[Any]) -> None:
    net, balancer = PartlySharedNet(), pt.Balancer(method, tuple("abc"), every=3)
    factors = []
    for step in range(4):
        if step == 2:  # a Balancer that continues from a stored state has them, too
            stored = balancer.state_dict()
            balancer = pt.Balancer(method, tuple("abc"), every=3)
            balancer.load_state_dict(stored)
        losses = net.losses("abc", step)
        own = torch.autograd.grad(sum(losses.values()), [h.weight for h in net.heads.values()], retain_graph=True)  # type: ignore[arg-type]
        balance = balancer.backward(losses)
        found = net.gradients()
        factors.append([float((found[f"heads.{t}.weight"] / g).mean()) for t, g in zip("abc", own, strict=True)])
        assert balance.heads is not None
        assert factors[-1] == pytest.approx(balance.heads.tolist())
    assert factors[1] == pytest.approx(factors[0])
    assert factors[2] == pytest.approx(factors[0])
    assert factors[3] != pytest.approx(factors[0])
