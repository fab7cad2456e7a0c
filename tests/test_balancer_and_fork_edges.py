"""Edge cases of Fork and Balancer: heads without gradients, reused weights, missing losses, unusual features and leaves."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from paretorch.core.contract import Balance, Method, Status
from paretorch.core.method.weights import weights
from paretorch.workloads.base import check_head_names

F64 = torch.float64


class EncoderAndHeads(NamedTuple):
    encoder: nn.Linear
    heads: nn.ModuleList
    inputs: Tensor


def model(tasks: int = 2, dtype: torch.dtype = F64) -> EncoderAndHeads:
    torch.manual_seed(0)
    return EncoderAndHeads(
        nn.Linear(4, 8, dtype=dtype),
        nn.ModuleList(nn.Linear(8, 1, dtype=dtype) for _ in range(tasks)),
        torch.randn(16, 4, dtype=dtype),
    )


def balance_of(fork: pt.Fork | pt.Balancer) -> Balance:
    assert fork.balance is not None
    return fork.balance


def listed(values: Tensor | None) -> list[Any]:
    assert values is not None
    found: list[Any] = values.tolist()
    return found


def model_losses(made: EncoderAndHeads, branches: Any = None) -> dict[str, Tensor]:
    z = made.encoder(made.inputs)
    return {
        str(task): (head(z if branches is None else branches[str(task)]) - task - 1).square().mean()
        for task, head in enumerate(made.heads)
    }


def test_head_without_gradient_on_the_encoder_is_trained() -> None:
    """Its weight begins at zero, so its task has no gradient on the encoder; it must not stay there."""
    made = model()
    first: nn.Linear = made.heads[0]  # type: ignore[assignment]
    nn.init.zeros_(first.weight)
    balancer = pt.Balancer(pt.UPGrad())
    balance = balancer.backward(model_losses(made))
    assert listed(balance.present) == [False, True]
    expected = torch.autograd.grad(model_losses(made)["0"], first.weight)[0]
    assert torch.equal(first.weight.grad, expected)  # type: ignore[arg-type]
    assert float(expected.abs().max()) > 0


def test_heads_are_trained_if_no_task_has_a_gradient_on_shared_parameters() -> None:
    made = model(3)
    for head in made.heads:
        nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    balance = pt.Balancer(pt.MGDA()).backward(model_losses(made))
    assert balance.status is Status.ABSENT
    assert all(float(head.weight.grad.abs().max()) > 0 for head in made.heads)  # type: ignore[union-attr, operator]
    assert not made.encoder.weight.grad.any()  # type: ignore[union-attr]


def test_weighted_heads_of_an_absent_task_keep_their_gradient() -> None:
    made = model()
    first: nn.Linear = made.heads[0]  # type: ignore[assignment]
    nn.init.zeros_(first.weight)
    fork = pt.Fork(pt.NashMTL(), tasks=("0", "1"), heads="weighted")
    sum(fork.losses(model_losses(made, fork(made.encoder(made.inputs)))).values()).backward()  # type: ignore[union-attr]
    expected = torch.autograd.grad(model_losses(made)["0"], first.weight)[0]
    torch.testing.assert_close(first.weight.grad, expected)


@pytest.mark.parametrize("samples", [None, 8])
@pytest.mark.parametrize("tasks", [2, 4])
def test_balancer_detects_nan_while_weights_are_reused(tasks: int, samples: int | None) -> None:
    made = model(tasks)
    balancer = pt.Balancer(pt.UPGrad(), every=3, samples=samples)
    balancer.backward(model_losses(made))
    before = made.encoder.weight.grad.clone()  # type: ignore[union-attr]
    broken = model_losses(made)
    broken["1"] = broken["1"] * math.nan
    with pytest.raises(FloatingPointError, match="'1'"):
        balancer.backward(broken)
    assert torch.equal(made.encoder.weight.grad, before)  # type: ignore[arg-type]


def test_fork_that_raises_detects_nan_while_weights_are_reused() -> None:
    made = model()
    fork = pt.Fork(pt.MGDA(), tasks=("0", "1"), every=3, nonfinite="raise")
    sum(model_losses(made, fork(made.encoder(made.inputs))).values()).backward()  # type: ignore[union-attr]
    losses = model_losses(made, fork(made.encoder(made.inputs)))
    with pytest.raises(FloatingPointError, match="'1'"):
        (losses["0"] + losses["1"] * math.inf).backward()


def test_balancer_with_a_gradscaler_recovers_from_an_overflow() -> None:
    made = model(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    optimizer = torch.optim.SGD([*made.encoder.parameters(), *made.heads.parameters()], lr=1e-3)
    balancer = pt.Balancer(pt.MGDA(), nonfinite="pass")
    start = made.encoder.weight.detach().clone()
    statuses = []
    for _ in range(40):
        optimizer.zero_grad()
        balance = balancer.backward({name: scaler.scale(100 * loss) for name, loss in model_losses(made).items()})
        statuses.append(balance.status)
        scaler.step(optimizer)
        scaler.update()
        if balance.status is Status.SOLVED and not torch.equal(made.encoder.weight, start):
            break
    assert statuses[0] is Status.NONFINITE
    assert statuses[-1] is Status.SOLVED
    assert not torch.equal(made.encoder.weight, start)


@pytest.mark.parametrize("features", ["tensor", "nested"])
def test_fork_treats_tasks_of_an_empty_batch_as_absent(features: str) -> None:
    encoder, fork = nn.Linear(4, 3), pt.Fork(pt.MGDA(), tasks=("a", "b"))
    z = encoder(torch.randn(0, 4))
    branch = fork(z if features == "tensor" else {"x": z, "y": [encoder(torch.zeros(0, 4))]})
    leaves = [v if features == "tensor" else v["x"] + v["y"][0] for v in branch.values()]
    sum(leaf.square().sum() for leaf in leaves).backward()
    assert balance_of(fork).status is Status.ABSENT


def test_fork_result_is_unchanged_by_an_additional_empty_leaf() -> None:
    made = model()
    fork = pt.Fork(pt.MGDA(), tasks=("0", "1"))
    branch = fork({"x": made.encoder(made.inputs), "boxes": made.encoder(made.inputs[:0])})
    left = made.heads[0](branch["0"]["x"]).square().mean() + branch["0"]["boxes"].sum()
    right = made.heads[1](branch["1"]["x"]).square().mean() * 0
    (left + right).backward()
    assert listed(balance_of(fork).present) == [True, False]


@pytest.mark.parametrize("tasks", [2, 5])
def test_balancer_result_is_unchanged_by_a_shared_parameter_of_size_zero(tasks: int) -> None:
    made = model(tasks)
    nothing = nn.Parameter(torch.zeros(0, dtype=F64))
    losses = {name: loss * (name != "0") + nothing.sum() for name, loss in model_losses(made).items()}
    balance = pt.Balancer(pt.UPGrad()).backward(losses)
    assert listed(balance.present) == [False] + [True] * (tasks - 1)


def test_fork_balances_a_tensor_that_is_nested_twice_once() -> None:
    point = nn.Parameter(torch.zeros(2, dtype=F64))
    fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))
    z = point[None] * 1.0
    branch = fork({"last": z, "hidden": [z]})
    a = branch["a"]["last"][0] @ torch.tensor([1.0, 0.0], dtype=F64)
    b = branch["b"]["hidden"][0][0] @ torch.tensor([-5.0, 1.0], dtype=F64)
    (a + b).backward()
    assert listed(balance_of(fork).gramian) == [[1.0, -5.0], [-5.0, 26.0]]
    assert float(point.grad @ torch.tensor([-5.0, 1.0], dtype=F64)) >= 0  # type: ignore[operator]


def test_fork_refuses_unknown_containers() -> None:
    class Own(dict[str, Tensor]):
        pass

    fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))
    z = nn.Linear(2, 2)(torch.ones(3, 2))
    with pytest.raises(ValueError, match="got a Own"):
        fork([z, Own(x=z)])


@pytest.mark.parametrize("method", [pt.GradNorm(), pt.LogLosses(pt.MGDA()), pt.Uncertainty()], ids=str)
def test_fork_names_missing_losses(method: Method[Any]) -> None:
    made = model()
    fork = pt.Fork(method, tasks=("0", "1"))
    losses = model_losses(made, fork(made.encoder(made.inputs)))
    recorded = fork.losses({"0": losses["0"]})
    with pytest.raises(RuntimeError, match="was not given the loss of '1'"):
        (recorded["0"] + losses["1"]).backward()


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_loss_methods_reuse_weights_as_well(by: str) -> None:
    made = model()
    fork, balancer = pt.Fork(pt.RLW(), tasks=("0", "1"), every=3), pt.Balancer(pt.RLW(), every=3)
    weights = []
    for _ in range(6):
        if by == "fork":
            sum(fork.losses(model_losses(made, fork(made.encoder(made.inputs)))).values()).backward()  # type: ignore[union-attr]
            weights.append(listed(balance_of(fork).weights))
        else:
            weights.append(listed(balancer.backward(model_losses(made)).weights))
    assert weights[0] == weights[1] == weights[2] != weights[3]
    assert weights[3] == weights[4] == weights[5]


def test_fork_record_is_unchanged_by_a_forward_that_is_kept_alive() -> None:
    made = model()
    fork = pt.Fork(pt.GradNorm(), tasks=("0", "1"))
    kept = model_losses(made, fork(made.encoder(made.inputs)))
    sum(fork.losses(model_losses(made, fork(made.encoder(made.inputs)))).values()).backward()  # type: ignore[union-attr]
    assert balance_of(fork).status is Status.SOLVED
    assert kept


def test_balancer_refuses_shared_parameters_that_no_loss_reaches() -> None:
    made = model()
    for other in (nn.Linear(3, 3), copy.deepcopy(made.encoder)):
        with pytest.raises(ValueError, match=r"no loss reaches any parameter of shared="):
            pt.Balancer(pt.UPGrad(), shared=other).backward(model_losses(made))


def test_balancer_excludes_frozen_shared_parameters_and_gives_unreached_ones_no_gradient() -> None:
    made, aside = model(), nn.Linear(2, 2)
    balancer = pt.Balancer(pt.UPGrad(), shared=[*made.encoder.parameters(), *aside.parameters()])
    made.encoder.bias.requires_grad_(False)
    balancer.backward(model_losses(made))
    assert made.encoder.weight.grad is not None
    assert made.encoder.bias.grad is None
    assert aside.weight.grad is None


def test_balancer_refuses_sparse_and_complex_gradients_with_a_cure() -> None:
    words, heads = nn.Embedding(9, 4, sparse=True), nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
    z = words(torch.arange(5))
    with pytest.raises(ValueError, match="sparse=False"):
        pt.Balancer(pt.MGDA()).backward({str(t): head(z).square().mean() for t, head in enumerate(heads)})
    waves = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
    for tasks in (2, 4):
        z = (torch.randn(5, 4, dtype=torch.complex64) @ waves).abs()
        with pytest.raises(ValueError, match="view_as_real"):
            pt.Balancer(pt.UPGrad()).backward({str(t): (z * (t + 1)).square().mean() for t in range(tasks)})


@pytest.mark.parametrize(
    ("option", "value"),
    [("every", 2.5), ("every", "2"), ("gap", 1.5), ("factor", math.inf), ("factor", True), ("seed", None)],
)
def test_options_of_the_wrong_kind_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        pt.Fork(pt.MGDA(), tasks=("a", "b"), **{option: value})


def test_whole_numbers_of_numpy_are_options() -> None:
    weights = []
    kinds: tuple[Any, ...] = (int, np.int64)
    for whole in kinds:
        made, balancer = model(), pt.Balancer(pt.RLW(), every=whole(2), seed=whole(2**40))
        fork = pt.Fork(pt.RLW(), tasks=("0", "1"), seed=whole(2**40))
        balancer.backward(model_losses(made, dict.fromkeys(("0", "1"), made.encoder(made.inputs))))
        sum(fork.losses(model_losses(made, fork(made.encoder(made.inputs)))).values()).backward()  # type: ignore[union-attr]
        weights.append(listed(balance_of(balancer).weights) + listed(balance_of(fork).weights))
        made = model()
        sampled = pt.Balancer(pt.MGDA(), samples=whole(2), seed=whole(3))
        sampled.backward(model_losses(made, dict.fromkeys(("0", "1"), made.encoder(made.inputs))))
        weights[-1] += listed(balance_of(sampled).weights)
    assert weights[0] == weights[1]


def test_famo_state_is_unchanged_by_an_infinite_loss_after_the_step() -> None:
    made = model()
    fork = pt.Fork(pt.FAMO(), tasks=("0", "1"))
    for after in (math.inf, 0.5):
        sum(fork.losses(model_losses(made, fork(made.encoder(made.inputs)))).values()).backward()  # type: ignore[union-attr]
        fork.observe({"0": torch.tensor(0.4), "1": torch.tensor(after)})
        assert fork.get_buffer("state_logits").isfinite().all()
    assert all(map(math.isfinite, listed(balance_of(fork).weights)))


def test_state_of_methods_in_methods_is_loaded_by_name() -> None:
    made = model(3)
    balancers = [pt.Balancer(pt.Momentum(pt.GradVac()), tasks=order) for order in (("0", "1", "2"), ("2", "0", "1"))]
    for _ in range(3):
        balancers[0].backward(model_losses(made))
    balancers[1].load_state_dict(balancers[0].state_dict())
    first, second = (balancer.get_buffer("state_inner__targets") for balancer in balancers)
    order = [2, 0, 1]
    assert torch.equal(second, first[order][:, order])
    assert not torch.equal(second, first)


def test_simplex_weights_are_updated_while_the_task_of_weight_one_is_absent() -> None:
    from paretorch.balance.parts.simplex_weights import with_present_weights

    away = torch.tensor([False, True, True])
    moved = with_present_weights(torch.tensor([1.0, 0.0, 0.0]), away, torch.tensor([0.75, 0.25], dtype=F64))
    torch.testing.assert_close(moved, torch.tensor([1 / 3, 0.5, 1 / 6], dtype=F64))


def test_excess_risk_on_nested_features_does_not_depend_on_the_batch_size() -> None:
    coarse, fine = nn.Linear(3, 4), nn.Linear(3, 2)
    fork = pt.Fork(pt.ExcessMTL(), tasks=("a", "b"))
    for rows in (8, 8, 5):
        x = torch.randn(rows, 3)
        branch = fork({"p3": coarse(x), "p4": fine(x)})
        losses = {
            "a": branch["a"]["p3"].square().mean() + branch["a"]["p4"].mean(),
            "b": (branch["b"]["p3"] - 1).square().mean() - branch["b"]["p4"].square().mean(),
        }
        sum(fork.losses(losses).values()).backward()  # type: ignore[union-attr]
    assert fork.get_buffer("state_squares").shape == (2, 6)
    assert balance_of(fork).weights is not None


def test_cagrad_ignores_directions_below_rounding() -> None:
    """Three gradients that nearly cancel: d is in its ball around the mean, or is the mean itself."""
    torch.manual_seed(1)
    worst = 0.0
    for _ in range(600):
        rows, share = torch.randn(3, 1000, dtype=F64), torch.rand((), dtype=F64)
        rows[2] = -share * rows[0] - (1 - share) * rows[1] + 1e-8 * torch.randn(1000, dtype=F64)
        rows[2] *= 0.3 + torch.rand((), dtype=F64)
        combined, mean = weights(pt.CAGrad(c=0.5, rescale=0), rows @ rows.T) @ rows, rows.mean(dim=0)
        worst = max(worst, float((combined - mean).norm() / (0.5 * mean.norm())))
    assert worst <= 1 + 1e-6


@pytest.mark.parametrize("name", ["", "two\nlines", "null\0", "\ud800", 1, None])
def test_task_names_that_cannot_be_stored_are_refused(name: Any) -> None:
    for make in (
        lambda: pt.Fork(pt.MGDA(), ("a", name)),
        lambda: pt.Balancer(pt.MGDA(), ("a", name)),
        lambda: check_head_names([name]),
    ):
        with pytest.raises(ValueError, match=r"non-empty string of one line|requires names that are not empty"):
            make()


@pytest.mark.parametrize(("kind", "heads"), [("balancer", "own"), ("balancer", "weighted"), ("fork", "own")])
def test_weight_beyond_float32_gives_the_finite_product(kind: str, heads: Any) -> None:
    """A loss 1e-34 times as large as another has a weight around 1e40 where a method makes their updates equally long."""
    made, scales = model(3, torch.float32), {"0": 1e-34, "1": 1e6, "2": 1e6}

    def losses(branches: Any = None) -> dict[str, Tensor]:
        return {name: loss * scales[name] for name, loss in model_losses(made, branches).items()}

    parameters = [*made.encoder.parameters(), *made.heads.parameters()]
    rows = [torch.autograd.grad(losses()[name], parameters, allow_unused=True) for name in scales]
    if kind == "balancer":
        balance = pt.Balancer(pt.NashMTL(), heads=heads, shared=made.encoder).backward(losses())
    else:
        fork = pt.Fork(pt.NashMTL(), tasks=("0", "1", "2"))
        sum(losses(fork(made.encoder(made.inputs))).values()).backward()  # type: ignore[union-attr]
        balance = balance_of(fork)
    weights = listed(balance.weights)
    assert weights[0] > torch.finfo(torch.float32).max
    for place, parameter in enumerate(parameters):
        factors = weights if place < 2 or heads == "weighted" else [1.0] * 3
        parts = [row[place] for row in rows]
        expected = sum(w * part.double() for w, part in zip(factors, parts, strict=True) if part is not None)
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad.double(), expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5
        )


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_fork_with_weighted_heads_refuses_a_weight_beyond_float32(nonfinite: Any) -> None:
    """The loss itself is multiplied by such a weight, which is inf."""
    made, scales = model(3, torch.float32), {"0": 1e-34, "1": 1e6, "2": 1e6}
    fork = pt.Fork(pt.NashMTL(), tasks=("0", "1", "2"), heads="weighted", nonfinite=nonfinite)
    branches = fork(made.encoder(made.inputs))
    given = {name: loss * scales[name] for name, loss in model_losses(made, branches).items()}
    total = sum(fork.losses(given).values())
    assert isinstance(total, Tensor)
    parameters = [*made.encoder.parameters(), *made.heads.parameters()]
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError, match="the weight of '0'"):
            total.backward()
        assert all(parameter.grad is None for parameter in parameters)
    else:
        total.backward()
        assert fork.skipped == {"0": 1}
        first = list(made.heads[0].parameters())
        assert all(p.grad is None or not p.grad.any() for p in first)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters[:2] + parameters[4:])


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_fork_warns_of_a_reentrant_checkpoint_in_the_head_of_a_broken_task(nonfinite: Any) -> None:
    """The loss is finite and the gradient of its root is not; the checkpoint hides the head's parameters."""
    made = model()

    def step(fork: pt.Fork, reentrant: bool) -> None:
        branches = fork(made.encoder(made.inputs))
        out = checkpoint(made.heads[0], branches["0"], use_reentrant=reentrant)
        broken = (out - out.detach()).square().sum().sqrt()  # 0, with the derivative 0 / 0
        losses = fork.losses({"0": broken, "1": made.heads[1](branches["1"]).square().mean()})
        (losses["0"] + losses["1"]).backward()

    for reentrant in (False, True):
        fork = pt.Fork(pt.MGDA(), tasks=("0", "1"), nonfinite=nonfinite)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                try:
                    step(fork, reentrant)
                    assert nonfinite == "skip"
                except FloatingPointError:
                    assert nonfinite == "raise"
        found = [str(each.message) for each in caught if "reentrant checkpoint" in str(each.message)]
        assert len(found) == reentrant
        assert all("the head of '0'" in each for each in found)
    assert made.encoder.weight.grad is None or bool(made.encoder.weight.grad.isfinite().all())


def test_balancer_records_the_weight_of_a_head_that_may_be_shared_and_warns() -> None:
    """One task's loss, before any step of several tasks: after loading a state, or in a first step."""
    made = model()
    losses = model_losses(made)
    (plain,) = torch.autograd.grad(losses["0"], [*made.heads[0].parameters()][:1], retain_graph=True)
    balancer = pt.Balancer(pt.CAGrad(c=0.5), tasks=("0", "1"), scale="paper")
    with pytest.warns(UserWarning, match=r"its head, too, is trained with the weight 1\.2"):
        balance = balancer.backward({"0": losses["0"]})
    heads = listed(balance.heads)
    torch.testing.assert_close(made.heads[0].weight.grad, heads[0] * plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        absent = pt.Balancer(pt.CAGrad(c=0.5), tasks=("0", "1"), scale="paper").backward(
            {"0": 0 * model_losses(made)["1"]}
        )
    assert listed(absent.heads)[0] == 1
    for shared in (False, True):  # known from a step of several tasks, or given
        balancer = pt.Balancer(
            pt.CAGrad(c=0.5), tasks=("0", "1"), scale="paper", shared=made.encoder if shared else None
        )
        if not shared:
            balancer.backward(model_losses(made))
        made.heads.zero_grad()
        loss = model_losses(made)["0"]
        (plain,) = torch.autograd.grad(loss, [*made.heads[0].parameters()][:1], retain_graph=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            balance = balancer.backward({"0": loss})
        assert listed(balance.heads)[0] == 1
        torch.testing.assert_close(made.heads[0].weight.grad, plain)


@pytest.mark.parametrize("every", [1, 2])
def test_balancer_trains_a_task_that_does_not_reach_what_is_shared_by_the_others(every: int) -> None:
    """Its loss alone does not show what it shares with the other tasks, which are absent."""
    torch.manual_seed(0)
    stem, trunk, heads = nn.Linear(4, 8), nn.Linear(8, 8), nn.ModuleDict({t: nn.Linear(8, 1) for t in "abc"})
    balancer = pt.Balancer(pt.UPGrad(), tasks=("a", "b", "c"), shared=trunk, every=every)
    for labels in ("a", "abc", "ab", "a", "a"):
        for module in (stem, trunk, heads):
            module.zero_grad()
        z = stem(torch.randn(6, 4))
        losses = {t: heads[t](z if t == "a" else trunk(z.relu())).square().mean() for t in labels}
        expected = torch.autograd.grad(losses["a"], [*heads["a"].parameters()], retain_graph=True)
        balance = balancer.backward(losses)
        assert listed(balance.present) == [False, "b" in labels, "c" in labels]
        for parameter, part in zip(heads["a"].parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, part)
    other = nn.Linear(8, 8)
    losses = {t: heads[t](other(stem(torch.randn(6, 4)))).square().mean() for t in "abc"}
    with pytest.raises(ValueError, match="is it of another model"):
        balancer.backward(losses)


@pytest.mark.parametrize("change", ["replaced", "appended", "weight norm"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_balancer_compares_the_parameters_that_the_shared_module_has_now(change: str, accumulate: int) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8)).double()
    heads = nn.ModuleDict({t: nn.Linear(8, 1) for t in "ab"}).double()
    balancer = pt.Balancer(pt.MGDA(), tasks=("a", "b"), shared=encoder, accumulate=accumulate)
    for step in range(3):
        if step == 1:
            if change == "replaced":
                encoder[2] = nn.Linear(8, 8).double()
            elif change == "appended":
                encoder.append(nn.Linear(8, 8).double())
            else:
                nn.utils.parametrizations.weight_norm(encoder[0])
        x = torch.randn(6, 4, dtype=torch.float64)
        rows = []
        for task in "ab":
            loss = (heads[task](encoder(x)) - 1).square().mean()
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*encoder.parameters()])]))
        for _ in range(accumulate):
            z = encoder(x)
            balance = balancer.backward({t: (heads[t](z) - 1).square().mean() / accumulate for t in "ab"})
        assert balance.gramian is not None
        expected = torch.stack(rows) @ torch.stack(rows).T
        torch.testing.assert_close(balance.gramian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.Uncertainty()], ids=str)
def test_fork_losses_of_no_task_where_the_branches_are_gone(method: Any) -> None:
    made, fork = model(), pt.Fork(method, tasks=("0", "1"))

    def outputs(labelled: tuple[int, ...]) -> dict[str, Tensor]:
        branch = fork(made.encoder(made.inputs))
        return {str(t): made.heads[t](branch[str(t)]).square().mean() for t in labelled}

    with pytest.raises(RuntimeError, match="comes after branch"):
        fork.losses({})
    for labelled in ((0, 1), (), (0, 1), ()):
        made.encoder.zero_grad()
        total = sum(fork.losses(outputs(labelled)).values())
        assert isinstance(total, Tensor)
        total.backward()
        assert (made.encoder.weight.grad is not None) == bool(labelled)
