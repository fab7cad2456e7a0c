"""A step waits for its device once: for the Gramian, with which everything else is transferred."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import paretorch as pt
from counting_device import CountingDevice, DeviceTensor, on_device, waits_of
from paretorch.core.gradients.rank_gramians import cross_gramian
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import Gradients, inner_products, to_host

Losses = Callable[[nn.ModuleDict, Any], dict[str, Tensor]]


def model(tasks: int, width: int = 8) -> nn.ModuleDict:
    encoder = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width))
    heads = {f"t{task}": nn.Linear(width, 2) for task in range(tasks)}
    return nn.ModuleDict({"encoder": encoder, **heads})


def losses_of(net: nn.ModuleDict, branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {task: net[task](z).square().mean() + 1 for task, z in branches.items()}


def fork_waits(method: pt.Method[Any], tasks: int, records: bool, **options: Any) -> list[str]:
    net, x = on_device(model(tasks)), DeviceTensor(torch.randn(7, 6))
    names = tuple(f"t{task}" for task in range(tasks))
    fork = on_device(pt.Fork(method, names, **options))
    assert isinstance(net, nn.ModuleDict)
    assert isinstance(fork, pt.Fork)

    def step() -> None:
        losses = losses_of(net, fork(net["encoder"](x)))
        sum((fork.losses(losses) if records else losses).values()).backward()  # type: ignore[union-attr]

    return waits_of(step)


def balancer_waits(
    method: pt.Method[Any], tasks: int, by_total: bool = False, width: int = 8, **options: Any
) -> list[str]:
    net, x = on_device(model(tasks, width)), DeviceTensor(torch.randn(7, 6))
    balancer = on_device(pt.Balancer(method, tasks=[f"t{task}" for task in range(tasks)], **options))
    assert isinstance(net, nn.ModuleDict)
    assert isinstance(balancer, pt.Balancer)

    def step() -> None:
        losses = losses_of(net, dict.fromkeys(balancer.tasks, net["encoder"](x)))
        if by_total:
            (balancer.total(losses) * 2).backward()
        else:
            balancer.backward(losses)

    return waits_of(step)


@pytest.mark.parametrize("tasks", [2, 3, 7])
@pytest.mark.parametrize(
    ("method", "records", "options"),
    [
        (pt.MGDA(), False, {}),
        (pt.IMTLG(), True, {}),
        (pt.UPGrad(), True, {"every": 2}),
        (pt.FAMO(), True, {}),  # with a state, which is on the device
        (pt.GradNorm(), True, {}),
        (pt.GradDrop(), False, {}),
    ],
    ids=str,
)
def test_fork_waits_once_for_the_device(
    method: pt.Method[Any], tasks: int, records: bool, options: dict[str, Any]
) -> None:
    waits = fork_waits(method, tasks, records, **options)
    assert len(waits) == 1, waits


@pytest.mark.parametrize("by_total", [False, True], ids=["backward", "total"])
@pytest.mark.parametrize("tasks", [2, 3, 7])
@pytest.mark.parametrize("method", [pt.UPGrad(), pt.GradNorm(), pt.GradDrop()], ids=str)
def test_balancer_waits_once_for_the_device(method: pt.Method[Any], tasks: int, by_total: bool) -> None:
    waits = balancer_waits(method, tasks, by_total)
    assert len(waits) == 1, waits


def test_balancer_without_gradients_of_all_tasks_waits_for_the_gramian_and_for_its_check() -> None:
    waits = balancer_waits(pt.UPGrad(), 10, width=128)
    assert len(waits) == 2, waits
    assert "shared_cotangents" in waits[1]


def test_balancer_of_losses_alone_waits_for_the_losses_and_for_the_check_of_gradients() -> None:
    assert len(balancer_waits(pt.FAMO(), 3)) == 2
    assert len(balancer_waits(pt.FAMO(), 3, nonfinite="pass")) == 1


def test_steps_on_the_counting_device_equal_those_on_the_host() -> None:
    for make in (pt.FAMO, pt.GradNorm, pt.UPGrad):
        found: list[list[Tensor]] = []
        for is_moved in (False, True):
            torch.manual_seed(3)
            net, x = model(3), torch.randn(7, 6)
            fork = pt.Fork(make(), ("t0", "t1", "t2"))
            with CountingDevice():
                if is_moved:
                    on_device(net)
                    on_device(fork)
                    x = DeviceTensor(x)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(torch, "is_autocast_enabled", lambda *_: False)
                    for _ in range(3):
                        net.zero_grad()
                        sum(fork.losses(losses_of(net, fork(net["encoder"](x)))).values()).backward()  # type: ignore[union-attr]
                tensors = [p.grad for p in net.parameters()] + list(fork.runner.state.fields())
                found.append(to_host([tensor for tensor in tensors if tensor is not None]))
        for host, moved in zip(*found, strict=True):
            torch.testing.assert_close(moved, host, rtol=1e-5, atol=1e-7)


def test_state_that_is_written_from_outside_is_read_again() -> None:
    with CountingDevice() as device:
        fork = on_device(pt.Fork(pt.FAMO(), ("a", "b")))
        assert isinstance(fork, pt.Fork)
        state = fork.runner.state
        initial = state.on_host()
        state.store(state.assembled([value + 1 for value in initial]))
        device.waits.clear()
        torch.testing.assert_close(state.on_host()[0], initial[0] + 1)
        assert not device.waits
        state.fields()[0].fill_(7.0)
        assert float(state.on_host()[0].max()) == 7.0
        assert len(device.waits) == 1


def test_jacobian_of_present_tasks_has_zeros_for_tasks_without_gradient() -> None:
    rows = [[torch.tensor([1.0, 2.0])], None, [torch.tensor([3.0, 4.0])], None]
    gradients = Gradients(rows, [torch.zeros(2)])
    present = torch.tensor([False, True, True, False])
    assert gradients.jacobian(present).tolist() == [[0.0, 0.0], [3.0, 4.0]]
    assert gradients.jacobian(torch.zeros(4, dtype=torch.bool)).shape == (0, 2)


def test_products_row_by_row_equal_the_product_of_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(3, 40), torch.randn(5, 40)
    expected = one.double() @ other.double().T
    monkeypatch.setattr("paretorch.core.gradients.task_gradients.uses_tf32", lambda _: True)
    found = inner_products(one, other)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class TF32(TorchDispatchMode):
    """Products of float32 matrices as a device computes them in TF32: of factors with 10 bits; those of a vector are exact."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"):
            self.products += 1
            args = [self._rounded(each) if isinstance(each, Tensor) else each for each in args]
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _rounded(tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        mantissa, exponent = torch.frexp(tensor)
        return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


@pytest.mark.parametrize("size", [1.0, 1e-30])  # squares of the second are below float32
@pytest.mark.parametrize("tasks", [3, 9])
def test_gramians_are_not_computed_in_tf32(tasks: int, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretorch.core.gradients.task_gradients.uses_tf32", lambda _: True)
    torch.manual_seed(11)
    rows = [size * torch.randn(2, tasks, 500) for _ in range(2)]
    leaves = [torch.zeros(500), torch.zeros(500)]
    first, second = (Gradients([[each[0, t], each[1, t]] for t in range(tasks)], leaves) for each in rows)
    one, two = (torch.cat([*each], dim=1).double() for each in rows)
    lengths = [each.square().sum(dim=1).sqrt() for each in (one, two)]
    with TF32() as mode:
        found = torch.from_numpy(first.gramian()[0])
        cross = torch.from_numpy(cross_gramian(first, second, Ranks(None))[0])
    assert mode.products == 0
    assert ((found - one @ one.T) / torch.outer(lengths[0], lengths[0])).abs().max() < 1e-6
    if size == 1.0:  # there is no cross Gramian of scaled rows
        assert ((cross - one @ two.T) / torch.outer(*lengths)).abs().max() < 1e-6
    with TF32() as mode:  # what the limit excludes
        rough = (one.float() / size) @ (one.float() / size).T
    assert mode.products == 1
    assert ((rough - one @ one.T / size**2) / torch.outer(lengths[0], lengths[0]) * size**2).abs().max() > 1e-5


def test_balancer_works_where_the_precision_of_one_backend_is_set() -> None:
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has one option for all backends")
    net = model(10, 128)
    matmul.fp32_precision = "tf32"
    try:
        balance = pt.Balancer(pt.UPGrad()).backward(
            losses_of(net, {f"t{task}": net["encoder"](torch.randn(7, 6)) for task in range(10)})
        )
    finally:
        matmul.fp32_precision = "none"
    assert balance.status.value == "solved"
