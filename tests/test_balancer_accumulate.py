"""Balancer(accumulate=k): the step of k micro-batches is that of the joined batch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from methods import METHODS, TASKS2
from small_models import Net, data, gradients, losses_of

ONE_BATCH = [entry.method for entry in METHODS if entry.method.batches == 1]


def chunked(step: int, parts: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The batch of a step, in so many micro-batches."""
    x, targets = data(samples=24, seed=20 + step)
    named = {task: targets[name].chunk(parts) for task, name in zip(TASKS2, targets, strict=False)}
    return [(rows, {task: named[task][part] for task in TASKS2}) for part, rows in enumerate(x.chunk(parts))]


def trained(method: pt.Method[Any], parts: int, form: str, steps: int = 3, **options: Any) -> tuple[Net, pt.Balancer]:
    model, balancer = Net(TASKS2), pt.Balancer(method, TASKS2, accumulate=parts, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(steps):
        optimizer.zero_grad()
        for x, targets in chunked(step, parts):
            losses = losses_of(model(x), targets)
            if form == "backward":
                balancer.backward({task: loss / parts for task, loss in losses.items()})
            else:
                (balancer.total(losses) / parts).backward()
        optimizer.step()
        if method.observes:
            [(x, targets)] = chunked(step, 1)
            with torch.no_grad():
                balancer.observe(losses_of(model(x), targets))
    return model, balancer


@pytest.mark.parametrize("form", ["backward", "total"])
@pytest.mark.parametrize("method", ONE_BATCH, ids=repr)
@pytest.mark.sampled(3)
def test_micro_batches_equal_the_joined_batch(method: pt.Method[Any], form: str) -> None:
    joined, whole = trained(method, 1, form)
    model, balancer = trained(method, 4, form)
    for one, other in zip(joined.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert whole.balance is not None
    assert balancer.balance is not None
    torch.testing.assert_close(balancer.balance.losses, whole.balance.losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(balancer.balance.factor, whole.balance.factor)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(balancer.state_dict()[name], value, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO(), pt.GradDrop()], ids=repr)
@pytest.mark.parametrize("options", [{"heads": "weighted"}, {"scale": "paper"}], ids=str)
def test_options_hold_for_micro_batches(method: pt.Method[Any], options: dict[str, Any]) -> None:
    joined, _ = trained(method, 1, "backward", **options)
    model, _ = trained(method, 3, "backward", **options)
    for one, other in zip(joined.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_reused_weights_are_counted_in_steps_not_in_micro_batches() -> None:
    joined, _ = trained(pt.UPGrad(), 1, "backward", steps=5, every=2)
    model, _ = trained(pt.UPGrad(), 3, "backward", steps=5, every=2)
    for one, other in zip(joined.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_gradients_change_at_the_last_micro_batch_alone() -> None:
    model, balancer = Net(TASKS2), pt.Balancer(pt.UPGrad(), accumulate=3)
    statuses = []
    for x, targets in chunked(0, 3):
        assert gradients(model).abs().max() == 0
        statuses.append(balancer.backward(losses_of(model(x), targets)).status)
    assert statuses == [pt.Status.ACCUMULATED, pt.Status.ACCUMULATED, pt.Status.SOLVED]
    assert gradients(model).abs().max() > 0


def test_task_of_one_micro_batch_takes_part_in_the_step() -> None:
    (x, targets), (x2, targets2) = chunked(0, 2)
    expected_model, expected = Net(TASKS2), pt.Balancer(pt.UPGrad(), TASKS2)
    one, two = losses_of(expected_model(x), targets), losses_of(expected_model(x2), targets2)
    expected.backward({"0": one["0"], "1": two["1"]})
    model, balancer = Net(TASKS2), pt.Balancer(pt.UPGrad(), TASKS2, accumulate=2)
    balancer.backward({"0": losses_of(model(x), targets)["0"]})
    balancer.backward({"0": None, "1": losses_of(model(x2), targets2)["1"]})
    torch.testing.assert_close(gradients(model), gradients(expected_model), rtol=1e-12, atol=1e-14)
    balancer.backward({"0": losses_of(model(x), targets)["0"]})
    balancer.backward({})  # a micro-batch without labels
    assert balancer.balance is not None
    assert balancer.balance.present is not None
    assert balancer.balance.present.tolist() == [True, False]


def test_evaluation_between_micro_batches_changes_nothing() -> None:
    def run(evaluates: bool) -> Tensor:
        model, balancer = Net(TASKS2), pt.Balancer(pt.FAMO(), TASKS2, accumulate=2)
        for x, targets in chunked(0, 2):
            (balancer.total(losses_of(model(x), targets)) / 2).backward()
            if evaluates:
                model.eval()
                averaged = copy.deepcopy(model.state_dict())
                with torch.no_grad():  # as with averaged weights: others for the evaluation, then the former ones
                    for parameter in model.parameters():
                        parameter.mul_(0.5)
                    balancer.total(losses_of(model(x), targets))
                model.load_state_dict(averaged)
                model.train()
        return gradients(model)

    assert torch.equal(run(True), run(False))


def test_flush_ends_a_step_early() -> None:
    (x, targets), (x2, targets2), (x3, targets3) = chunked(0, 3)
    model, balancer = Net(TASKS2), pt.Balancer(pt.UPGrad(), accumulate=3)
    assert balancer.flush() is None
    balancer.backward(losses_of(model(x), targets))
    balancer.backward(losses_of(model(x2), targets2))
    assert gradients(model).abs().max() == 0
    balance = balancer.flush()
    assert balance is not None
    assert balance.status is pt.Status.SOLVED
    expected_model, expected = Net(TASKS2), pt.Balancer(pt.UPGrad())
    one, two = losses_of(expected_model(x), targets), losses_of(expected_model(x2), targets2)
    expected.backward({task: one[task] + two[task] for task in TASKS2})
    torch.testing.assert_close(gradients(model), gradients(expected_model), rtol=1e-12, atol=1e-14)
    assert balancer.backward(losses_of(model(x3), targets3)).status is pt.Status.ACCUMULATED


@pytest.mark.parametrize("method", [pt.ScaleInvariant(), pt.GeometricMean(), pt.Uncertainty()], ids=repr)
def test_flushed_losses_are_the_sums_of_the_given_ones(method: pt.Method[Any]) -> None:
    (x, targets), (x2, targets2), _ = chunked(0, 3)
    model, balancer = Net(TASKS2), pt.Balancer(method, TASKS2, accumulate=3)
    balancer.backward(losses_of(model(x), targets))
    balancer.backward(losses_of(model(x2), targets2))
    found = balancer.flush()
    expected_model, expected = Net(TASKS2), pt.Balancer(method, TASKS2)
    one, two = losses_of(expected_model(x), targets), losses_of(expected_model(x2), targets2)
    joined = expected.backward({task: one[task] + two[task] for task in TASKS2})
    assert found is not None
    torch.testing.assert_close(found.losses, joined.losses, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients(model), gradients(expected_model), rtol=1e-12, atol=1e-14)


def test_optimizer_step_between_micro_batches_is_an_error_that_names_flush() -> None:
    model, balancer = Net(TASKS2), pt.Balancer(pt.UPGrad(), accumulate=3)
    batches = chunked(0, 3)
    balancer.backward(losses_of(model(batches[0][0]), batches[0][1]))
    with torch.no_grad():
        model.encoder[0].bias.add_(1e-3)
    with pytest.raises(ValueError, match=r"after 1 of accumulate=3 .*balancer.flush\(\)"):
        balancer.backward(losses_of(model(batches[1][0]), batches[1][1]))
    for x, targets in batches:  # the next step is whole
        balancer.backward(losses_of(model(x), targets))
    assert gradients(model).abs().max() > 0


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.FAMO()], ids=repr)
def test_nonfinite_micro_batch_raises_names_the_task_and_changes_nothing(method: pt.Method[Any]) -> None:
    model, balancer = Net(TASKS2), pt.Balancer(method, TASKS2, accumulate=2)
    state = copy.deepcopy(balancer.state_dict())
    (x, targets), (x2, targets2) = chunked(0, 2)
    losses = losses_of(model(x), targets)
    balancer.backward({**losses, "1": losses["1"] * float("nan")})
    with pytest.raises(FloatingPointError, match="'1'"):
        balancer.backward(losses_of(model(x2), targets2))
    assert gradients(model).abs().max() == 0
    torch.testing.assert_close(dict(balancer.state_dict()), dict(state), rtol=0, atol=0, equal_nan=True)
    for x, targets in chunked(1, 2):
        balancer.backward(losses_of(model(x), targets))
    assert gradients(model).isfinite().all()


def test_copies_and_loaded_states_start_a_new_step() -> None:
    model, balancer = Net(TASKS2), pt.Balancer(pt.UPGrad(), TASKS2, accumulate=2)
    (x, targets), (x2, targets2) = chunked(0, 2)
    balancer.backward(losses_of(model(x), targets))
    with pytest.warns(UserWarning, match="after 1 of accumulate=2"):
        other = copy.deepcopy(balancer)
    assert other.backward(losses_of(model(x), targets)).status is pt.Status.ACCUMULATED
    with pytest.warns(UserWarning, match="after 1 of accumulate=2"):
        balancer.load_state_dict(balancer.state_dict())
    assert balancer.backward(losses_of(model(x2), targets2)).status is pt.Status.ACCUMULATED


def loaded(model: nn.ModuleDict) -> nn.ModuleDict:
    other = nn.ModuleDict({"net": Net(TASKS2), "balancer": pt.Balancer(pt.DWA(), TASKS2, accumulate=3)})
    other.load_state_dict(model.state_dict())
    return other


COPIES: dict[str, Callable[[nn.ModuleDict], nn.ModuleDict]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "state_dict": loaded,
}
UNFINISHED = r"after {} of accumulate=3 micro-batches\. Their gradients are {}.*balancer\.flush\(\)"


def accumulating() -> nn.ModuleDict:
    return nn.ModuleDict({"net": Net(TASKS2), "balancer": pt.Balancer(pt.DWA(), TASKS2, accumulate=3)})


def step_of(model: nn.ModuleDict, batches: list[tuple[Tensor, dict[str, Tensor]]]) -> Tensor:
    net: Any = model["net"]
    balancer: Any = model["balancer"]
    for x, targets in batches:
        balancer.backward(losses_of(net(x), targets))
    return gradients(net)


@pytest.mark.parametrize("given", [1, 2])
@pytest.mark.parametrize("kind", COPIES)
def test_copy_within_a_step_warns_starts_a_new_step_and_leaves_the_original_as_it_is(kind: str, given: int) -> None:
    batches, model, expected = chunked(0, 3), accumulating(), accumulating()
    for each in (model, expected):
        step_of(each, chunked(1, 3))
        step_of(each, batches[:given])
    stored = "not stored" if kind == "state_dict" else "not part of the copy"
    with pytest.warns(UserWarning, match=UNFINISHED.format(given, stored)) as warned:
        other = COPIES[kind](model)
    assert len(warned) == 1
    finished = step_of(expected, batches[given:])
    assert torch.equal(step_of(model, batches[given:]), finished)
    other["net"].zero_grad()
    step_of(other, batches)  # the whole step
    again = accumulating()
    step_of(again, chunked(1, 3))
    again["net"].zero_grad()
    assert torch.equal(gradients(other["net"]), step_of(again, batches))


@pytest.mark.parametrize("kind", COPIES)
def test_copy_between_two_steps_continues_as_the_original(kind: str) -> None:
    model = accumulating()
    step_of(model, chunked(0, 3))
    step_of(model, chunked(1, 2))
    balancer: Any = model["balancer"]
    balancer.flush()
    other = COPIES[kind](model)
    for each in (model, other):
        each["net"].zero_grad()
    assert torch.equal(step_of(other, chunked(2, 3)), step_of(model, chunked(2, 3)))


@pytest.mark.parametrize("event", ["load", "reset"])
def test_load_and_reset_within_a_step_warn_and_start_a_new_step(event: str) -> None:
    batches, model, expected = chunked(0, 3), accumulating(), accumulating()
    state = copy.deepcopy(model["balancer"].state_dict())
    step_of(model, batches[:2])
    balancer: Any = model["balancer"]
    with pytest.warns(UserWarning, match=UNFINISHED.format(2, "discarded")) as warned:
        balancer.load_state_dict(state) if event == "load" else balancer.reset_state()
    assert len(warned) == 1
    assert torch.equal(step_of(model, batches), step_of(expected, batches))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate is a whole number of at least 1"),
        ({"accumulate": 2.5}, "accumulate is a whole number"),
        ({"accumulate": 2, "samples": 4}, "samples=4 draws from one batch"),
        ({"accumulate": 2, "method": pt.MoDo()}, "takes several batches"),
    ],
    ids=str,
)
def test_accumulate_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pt.Balancer(**{"method": pt.UPGrad(), **options})
