"""State of Fork and Balancer: uninitialised, averaged, cast, stored in another order, of another method, and reset."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import paretorch as pt
from paretorch.core.contract import Method, Need
from paretorch.core.method.state_buffers import decoded, encoded

F64 = torch.float64
STATEFUL: list[Method[Any]] = [
    pt.Uncertainty(),
    pt.FAMO(),
    pt.GradVac(beta=0.3),
    pt.ExcessMTL(step=0.3),
    pt.RLW(),
    pt.DWA(window=2),
]
with_fork_and_balancer = pytest.mark.parametrize("by", ["fork", "balancer"])
over_methods = pytest.mark.parametrize("method", STATEFUL, ids=repr)


class ModelWithMethod(nn.Module):
    """An encoder, a head per task, and a Fork or Balancer as a submodule."""

    def __init__(
        self, method: Method[Any], by: str = "fork", tasks: tuple[str, ...] = ("left", "right"), **options: Any
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(5, 6, dtype=F64)
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1, dtype=F64) for task in sorted(tasks)})
        self.method_module = (
            pt.Fork(method, tasks, **options) if by == "fork" else pt.Balancer(method, tasks, **options)
        )

    def step(self, count: int = 1) -> pt.Balance:
        for number in range(count):
            z = self.encoder(torch.randn(8, 5, dtype=F64, generator=torch.Generator().manual_seed(number)))
            forks = isinstance(self.method_module, pt.Fork)
            branch = self.method_module(z) if forks else dict.fromkeys(self.heads, z)
            losses = {t: (head(branch[t]) - len(t)).square().mean() for t, head in self.heads.items()}
            if isinstance(self.method_module, pt.Fork):
                sum(self.method_module.losses(losses).values()).backward()  # type: ignore[union-attr]
            else:
                self.method_module.backward(losses)
        balance = self.method_module.balance
        assert balance is not None
        return balance

    def gradient(self) -> Tensor:
        assert self.encoder.weight.grad is not None
        found = self.encoder.weight.grad.clone()
        self.zero_grad()
        return found


def held(model: ModelWithMethod) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.method_module.state_dict().items()}


def check_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


@with_fork_and_balancer
@over_methods
def test_reset_state_restores_the_initial_state(method: Method[Any], by: str) -> None:
    model = ModelWithMethod(method, by, every=1 if Need.JACOBIAN in method.needs else 2)
    before = held(model)
    model.step(3)
    first = model.gradient()
    model.method_module.reset_state()
    check_equal(held(model), before)
    assert model.method_module.balance is None
    model.step(3)
    assert torch.equal(model.gradient(), first)


def test_reset_state_undeclares_the_tasks_of_a_balancer_made_without_tasks() -> None:
    model = ModelWithMethod(pt.Uncertainty())
    balancer = pt.Balancer(pt.Uncertainty())
    z = model.encoder(torch.ones(2, 5, dtype=F64))
    balancer.backward({"left": model.heads["left"](z).square().mean()})
    balancer.reset_state()
    z = model.encoder(torch.ones(2, 5, dtype=F64))
    balance = balancer.backward({"right": model.heads["right"](z).square().mean()})
    assert balance.tasks == ("right",)
    assert balancer.get_buffer("state_taken").tolist() == [1]


@with_fork_and_balancer
@over_methods
def test_model_on_the_meta_device_has_the_initial_state_after_to_empty(method: Method[Any], by: str) -> None:
    expected = ModelWithMethod(method, by)
    with torch.device("meta"):
        model = ModelWithMethod(method, by)
    model.to_empty(device="cpu")
    for module in (model.encoder, model.heads):
        module.load_state_dict(getattr(expected, "encoder" if module is model.encoder else "heads").state_dict())
    for made in (expected, model):
        made.step(2)
    assert torch.equal(model.gradient(), expected.gradient())
    check_equal(held(model), held(expected))


GARBAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "nan": lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else torch.full_like(t, 2**40),
    "large": lambda t: torch.full_like(t, 1e30 if t.is_floating_point() else 2**40),
    "bytes": lambda t: torch.full_like(t, 200),  # no UTF-8
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("how", ["assigned", "in place"])
@with_fork_and_balancer
def test_uninitialised_state_is_reset_with_a_warning(by: str, how: str, kind: str) -> None:
    """As left by loaders that create the entries a checkpoint lacks, by assignment or in existing memory."""
    model, expected = ModelWithMethod(pt.Uncertainty(), by), ModelWithMethod(pt.Uncertainty(), by)
    model.step()  # valid names are checked again after they are overwritten
    model.gradient()
    for name, value in list(model.method_module.named_buffers()):
        if how == "assigned":
            setattr(model.method_module, name, GARBAGE[kind](value))
        else:
            value.copy_(GARBAGE[kind](value))
    with pytest.warns(UserWarning, match="The state is reset"):
        model.step()
    expected.step()
    assert torch.equal(model.gradient(), expected.gradient())
    check_equal(held(model), held(expected))
    model.step()  # and warns once


AVERAGES: dict[str, dict[str, Any]] = {
    "mean": {},
    "exponential": {"avg_fn": get_ema_avg_fn(0.999)},
    "exponential, foreach": {"multi_avg_fn": get_ema_multi_avg_fn(0.999)},
    "own": {"avg_fn": lambda averaged, value, _: 0.9 * averaged + 0.1 * value},
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_task_names_survive_an_average_over_buffers(kind: str) -> None:
    tasks = ("größe", "深度", "z")
    model = ModelWithMethod(pt.Uncertainty(), tasks=tasks)
    averaged: Any = AveragedModel(model, use_buffers=True, **AVERAGES[kind])
    for _ in range(300):
        averaged.update_parameters(model)
    model.step()
    averaged.update_parameters(model)
    other = ModelWithMethod(pt.Uncertainty(), tasks=("z", "größe", "深度"))
    other.load_state_dict(averaged.module.state_dict())
    assert decoded(other.method_module.task_names) == other.method_module.tasks
    torch.testing.assert_close(other.method_module.state_taken, averaged.module.method_module.state_taken[[2, 0, 1]])
    averaged.module.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.int64])
def test_task_names_survive_casts_and_old_checkpoints_load(dtype: torch.dtype) -> None:
    model = ModelWithMethod(pt.Uncertainty(), tasks=("größe", "z"))
    model.step()
    integer = not dtype.is_floating_point  # the names were uint8 before 2026
    stored = {k: v.to(dtype) if not integer or "task_names" in k else v for k, v in model.state_dict().items()}
    other = ModelWithMethod(pt.Uncertainty(), tasks=("z", "größe"))
    other.load_state_dict(stored)
    rtol = 0.0 if integer else 2 * torch.finfo(dtype).eps
    for name in ("state_log_variance", "state_first", "state_taken"):
        expected = getattr(model.method_module, name).flip(0)
        torch.testing.assert_close(getattr(other.method_module, name), expected, rtol=rtol, atol=1e-6 if rtol else 0)
    assert decoded(other.method_module.task_names) == ("z", "größe")


def test_state_with_unreadable_task_names_is_not_used() -> None:
    model = ModelWithMethod(pt.Uncertainty())
    model.step()
    stored = model.state_dict()
    stored["method_module.task_names"] = torch.full_like(stored["method_module.task_names"], torch.nan)
    other = ModelWithMethod(pt.Uncertainty())
    before = held(other)
    other.step()
    with pytest.warns(UserWarning, match="cannot be read"):
        other.load_state_dict(stored)
    check_equal(held(other), before)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("loads", [True, False], ids=["then load_state_dict", "in place alone"])
@with_fork_and_balancer
@pytest.mark.parametrize("method", [pt.Uncertainty(), pt.GradVac(beta=0.3)], ids=repr)
def test_distributed_checkpoint_is_loaded_by_task_name(
    method: Method[Any], by: str, loads: bool, tmp_path: Any
) -> None:
    orders = [("left", "right", "c"), ("right", "c", "left"), ("c", "left", "right")]
    models = [ModelWithMethod(method, by, tasks=orders[0])]
    models[0].step(3)
    for number, order in enumerate((*orders[1:], orders[0])):
        save(models[-1].state_dict(), checkpoint_id=tmp_path / str(number), no_dist=True)
        model = ModelWithMethod(method, by, tasks=order)
        stored = model.state_dict()
        load(stored, checkpoint_id=tmp_path / str(number), no_dist=True)
        if loads:
            model.load_state_dict(stored)
            assert decoded(model.method_module.task_names) == order
        models.append(model)
    for model in models:
        model.zero_grad()
        if isinstance(method, pt.GradVac):  # its weights depend on the order of the tasks
            model.method_module.runner.state.verify()
        else:
            model.step()
    for model in models[1:]:
        places = [models[0].method_module.tasks.index(task) for task in model.method_module.tasks]
        for name, value in models[0].method_module.named_buffers():
            if name == "task_names":
                continue
            right = value if value.ndim == 0 else value[places][:, places] if value.shape == (3, 3) else value[places]
            torch.testing.assert_close(model.method_module.get_buffer(name), right, rtol=1e-9, atol=1e-12)
        if not isinstance(method, pt.GradVac):
            torch.testing.assert_close(model.encoder.weight.grad, models[0].encoder.weight.grad, rtol=1e-9, atol=1e-12)


@with_fork_and_balancer
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("stored", "own"),
    [(pt.FAMO(), pt.MGDA()), (pt.MGDA(), pt.FAMO()), (pt.FAMO(), pt.Uncertainty()), (pt.RLW(), pt.GradVac())],
    ids=repr,
)
def test_state_of_another_method_is_reported_by_torch(
    stored: Method[Any], own: Method[Any], strict: bool, by: str
) -> None:
    one, other = ModelWithMethod(stored, by), ModelWithMethod(own, by)
    if strict:
        with pytest.raises(RuntimeError, match=r"(Unexpected|Missing) key\(s\) in state_dict: \"method_module\."):
            other.load_state_dict(one.state_dict())
        return
    found = other.load_state_dict(one.state_dict(), strict=False)
    buffers = {f"method_module.{name}" for name, _ in other.method_module.named_buffers()}
    assert (
        set(found.unexpected_keys)
        == {f"method_module.{name}" for name, _ in one.method_module.named_buffers()} - buffers
    )
    assert set(found.missing_keys) == buffers - {
        f"method_module.{name}" for name, _ in one.method_module.named_buffers()
    }
    other.step()


def test_task_names_are_decoded_as_encoded() -> None:
    for tasks in (("a",), ("a", "b"), ("größe", "深度", "x y")):
        assert decoded(encoded(tasks)) == tasks
    assert decoded(torch.tensor([97.4])) is None
    assert decoded(torch.tensor([torch.inf])) is None
    assert decoded(torch.empty(3, device="meta")) is None


def test_copies_and_moves_keep_the_state() -> None:
    model = ModelWithMethod(pt.Uncertainty())
    model.step(2)
    for other in (copy.deepcopy(model), copy.deepcopy(model).to(torch.float64), copy.deepcopy(model).half().double()):
        check_equal(held(other), held(model))
        other.method_module.reset_state()
        assert model.method_module.get_buffer("state_taken").tolist() == [2, 2]


def test_former_name_of_deferred_balance_works_and_warns() -> None:
    model = ModelWithMethod(pt.MGDA())
    model.step()
    assert isinstance(model.method_module, pt.Fork)
    with pytest.warns(FutureWarning, match=r"Fork\.said is now Fork\.deferred_balance"):
        balance = model.method_module.said()()
    assert balance is not None
    assert balance.weights is not None
    assert model.method_module.balance is not None
    assert model.method_module.balance.weights is not None
    assert torch.equal(balance.weights, model.method_module.balance.weights)
