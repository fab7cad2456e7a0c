"""Faults in the wiring of a model: each is named in one sentence, with its task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from paretorch.workloads import MultiTaskModel

TASKS = ("a", "b", "c")


def model(tasks: tuple[str, ...] = TASKS) -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), {task: nn.Linear(8, 1) for task in tasks})


def batches(count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(10, 4, generator=generator) for _ in range(count)]


def losses_of(model: Any, x: Tensor) -> dict[str, Tensor]:
    outputs = model(x)
    return {task: (output[:, 0] - x[:, place]).square().mean() for place, (task, output) in enumerate(outputs.items())}


def diagnose(net: nn.Module, losses: Any = losses_of, **options: Any) -> pt.Diagnosis:
    return pt.diagnose(net, losses, batches(), **{"measured": 5, "warmup": 2, **options})


# --- nothing can be measured ---------------------------------------------------------------------------------------------


def test_diagnosis_of_disjoint_models_is_refused() -> None:
    nets = nn.ModuleDict({task: nn.Linear(4, 1) for task in "ab"})
    with pytest.raises(ValueError, match="the tasks share no parameter"):
        diagnose(nets, lambda m, x: {task: m[task](x).square().mean() for task in "ab"})


@pytest.mark.parametrize("features", [None, "net"])
def test_diagnosis_of_a_frozen_encoder_is_refused(features: str | None) -> None:
    parts = nn.ModuleDict({"net": nn.Linear(4, 8), "a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
    parts["net"].requires_grad_(False)
    with pytest.raises(ValueError, match=r"is frozen: 2 of its parameters .*net\.(0\.)?weight"):
        diagnose(parts, lambda m, x: {t: m[t](m["net"](x)).square().mean() for t in "ab"}, features=features)


def test_diagnosis_of_a_frozen_encoder_of_our_model_is_refused() -> None:
    net = model()
    net.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="the encoder 'encoder' is frozen"):
        diagnose(net)


def test_diagnosis_of_a_model_that_is_frozen_as_a_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        diagnose(model().requires_grad_(False))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diagnosis_of_a_loss_that_is_not_finite_names_the_task(value: float) -> None:
    with pytest.raises(ValueError, match=f"the loss of task 'b' is {value}"):
        diagnose(model(), lambda m, x: {**losses_of(m, x), "b": losses_of(m, x)["b"] * value})


def test_diagnosis_of_a_gradient_that_is_not_finite_names_the_task() -> None:
    def slope(m: Any, x: Tensor) -> dict[str, Tensor]:
        losses = losses_of(m, x)
        return {**losses, "c": (m.heads["c"](m.encoder(x)) * 0).square().sum().sqrt()}

    with pytest.raises(ValueError, match="the gradient of task 'c' is not finite"):
        diagnose(model(), slope)


def test_diagnosis_of_one_task_is_refused() -> None:
    with pytest.raises(ValueError, match="a single task, 'a'"):
        diagnose(model(("a",)))


def test_diagnosis_of_losses_of_another_object_than_the_given_one_is_refused() -> None:
    net = model()
    with pytest.raises(ValueError, match="use its first argument"):
        diagnose(net, lambda m, x: losses_of(net, x))


def test_diagnosis_of_two_tasks_of_which_one_is_detached_names_it() -> None:
    def detached(m: Any, x: Tensor) -> dict[str, Tensor]:
        z = m.encoder(x)
        return {"a": m.heads["a"](z).square().mean(), "b": m.heads["b"](z.detach()).square().mean()}

    with pytest.raises(ValueError, match="task 'b' does not depend on the output of 'encoder'"):
        diagnose(model(("a", "b")), detached)


def test_diagnosis_of_a_warm_up_that_diverges_names_step_and_cure() -> None:
    with pytest.raises(ValueError, match=r"diverged in step \d+: .*smaller learning rate"):
        diagnose(model(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30), warmup=30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measured": 3}, "measured is a whole number of at least 4"),
        ({"warmup": -1}, "warmup is a whole number of at least 0"),
        ({"features": "trunk"}, "got 'trunk'; submodules of the model are 'encoder', 'heads'"),
        ({"features": "heads.a.nothing"}, "features names the submodule"),
    ],
)
def test_diagnosis_refuses_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(model(), **options)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda m, x: [1.0], "expected a dict of a scalar loss by task, got a list"),
        (lambda m, x: {}, "returned no loss in any batch"),
        (lambda m, x: {"a": m(x)["a"], "b": m(x)["b"]}, r"task 'a', got a tensor of shape \(10, 1\)"),
        (lambda m, x: {"a": 1.0, "b": 2.0}, "scalar tensor for task 'a', got float"),
        (None, "losses_of: expected a function"),
    ],
)
def test_diagnosis_refuses_other_losses(losses: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(model(), losses)


def test_diagnosis_refuses_too_few_batches_and_what_is_no_model() -> None:
    with pytest.raises(ValueError, match="expected at least 4 batches, got 2"):
        pt.diagnose(model(), losses_of, batches(2))
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got a function"):
        pt.diagnose(losses_of, losses_of, batches())
    with pytest.raises(ValueError, match="the model has no parameter"):
        pt.diagnose(nn.Identity(), losses_of, batches())


def test_diagnosis_refuses_a_submodule_that_is_not_called() -> None:
    net = model()
    net.spare = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="does not call this submodule"):
        diagnose(net, features="spare")


# --- something is left to measure ----------------------------------------------------------------------------------------


def test_diagnosis_names_a_detached_task() -> None:
    def detached(m: Any, x: Tensor) -> dict[str, Tensor]:
        z = m.encoder(x)
        own = {task: (z.detach() if task == "b" else z) for task in TASKS}
        return {task: (m.heads[task](own[task])[:, 0] - x[:, 0]).square().mean() for task in TASKS}

    (problem,) = diagnose(model(), detached).problems
    assert problem.startswith("the loss of task 'b' does not depend on the output of 'encoder'")


def test_diagnosis_names_a_detached_task_where_the_features_are_unknown() -> None:
    parts = nn.ModuleDict({"net": nn.Linear(4, 8), **{task: nn.Linear(8, 1) for task in TASKS}})

    def detached(m: Any, x: Tensor) -> dict[str, Tensor]:
        z = m["net"](x)
        return {task: m[task](z.detach() if task == "c" else z).square().mean() for task in TASKS}

    (problem,) = diagnose(parts, detached).problems
    assert problem.startswith("the loss of task 'c' reaches no parameter that another task reaches")


def test_diagnosis_names_a_loss_without_a_graph_and_one_that_is_constant() -> None:
    def broken(m: Any, x: Tensor) -> dict[str, Tensor]:
        return {**losses_of(m, x), "item": torch.tensor(float(x.sum())), "same": torch.tensor(2.0)}

    found = diagnose(model(), broken).problems
    assert any("'item' depends on no parameter" in problem for problem in found)
    assert any("'same' is the same number in all batches" in problem for problem in found)


def test_diagnosis_names_a_task_that_is_zero_without_a_graph_in_every_batch() -> None:
    found = diagnose(model(), lambda m, x: {**losses_of(m, x), "masked": torch.tensor(0.0)}).problems
    assert [problem for problem in found if "'masked' is a zero without a graph in every measured batch" in problem]
    with pytest.raises(ValueError, match=r"single task, 'a'.*'masked' is a zero without a graph"):
        diagnose(model(), lambda m, x: {"a": losses_of(m, x)["a"], "masked": torch.tensor(0.0)})


def test_diagnosis_names_tasks_with_identical_gradients() -> None:
    found = diagnose(model(), lambda m, x: {**losses_of(m, x), "copy": losses_of(m, x)["a"] + 1})
    assert [problem for problem in found.problems if "'a' and 'copy' have identical gradients" in problem]


def test_diagnosis_names_a_task_with_zero_gradient() -> None:
    found = diagnose(model(), lambda m, x: {**losses_of(m, x), "b": losses_of(m, x)["b"] * 0 + x[0, 0]})
    assert [problem for problem in found.problems if "gradient of task 'b'" in problem and "is zero" in problem]
    assert found.weights["b"] == 1


def test_diagnosis_names_batches_that_are_all_equal() -> None:
    found = pt.diagnose(model(), losses_of, batches(1) * 6, measured=6, warmup=0)
    assert [problem for problem in found.problems if "every loss has the same value" in problem]


def test_diagnosis_names_heads_that_are_not_part_of_the_model() -> None:
    net = model()
    found = diagnose(net.encoder, lambda m, x: {t: head(m(x)).square().mean() for t, head in net.heads.items()})
    assert [problem for problem in found.problems if "6 parameters that do not belong to the model" in problem]
