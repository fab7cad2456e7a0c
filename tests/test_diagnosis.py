"""The diagnosis of small models: numbers against those by hand, advice, and the model as it was before."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

import paretorch as pt
from paretorch.diagnosis.advice import NO_CONFLICT
from paretorch.diagnosis.gradients import noise_and_expected_cosines
from paretorch.diagnosis.intervals import mean_bounds, student_quantile
from paretorch.diagnosis.subject import group_names
from paretorch.workloads import MultiTaskModel

LossesOf = Callable[[Any, Any], Mapping[str, Tensor | None]]


def model(seed: int = 0, tasks: tuple[str, ...] = ("a", "b"), middle: nn.Module | None = None) -> MultiTaskModel:
    torch.manual_seed(seed)
    encoder = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), middle or nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 8)
    )
    return MultiTaskModel(encoder, {task: nn.Linear(8, 1) for task in tasks})


def batches(count: int = 14, size: int = 24, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 6, generator=generator) for _ in range(count)]


def regressions(**targets: Callable[[Tensor], Tensor]) -> LossesOf:
    """The squared error of each head to a target, a function of the inputs, times the scale that the name ends with."""

    def losses_of(model: Any, x: Tensor) -> dict[str, Tensor]:
        outputs = model(x)
        return {task: functional.mse_loss(outputs[task][:, 0], target(x)) for task, target in targets.items()}

    return losses_of


independent = regressions(a=lambda x: x[:, 0], b=lambda x: x[:, 1])


# --- what is measured ----------------------------------------------------------------------------------------------------


def test_diagnosis_norms_and_cosines_equal_those_by_hand() -> None:
    torch.manual_seed(3)
    net = MultiTaskModel(nn.Linear(6, 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)}).double()
    data = [batch.double() for batch in batches(6)]
    found = pt.diagnose(net, independent, data, measured=6, warmup=0)
    on_parameters, on_features = [], []
    for x in data:
        z = net.encoder(x)
        losses = [
            functional.mse_loss(net.heads["a"](z)[:, 0], x[:, 0]),
            functional.mse_loss(net.heads["b"](z)[:, 0], x[:, 1]),
        ]
        ends = [z, *net.encoder.parameters()]
        rows = [torch.autograd.grad(loss, ends, retain_graph=True) for loss in losses]
        on_features.append(torch.stack([row[0].flatten() for row in rows]))
        on_parameters.append(torch.stack([torch.cat([part.flatten() for part in row[1:]]) for row in rows]))
    cosines = [float(functional.cosine_similarity(rows[0], rows[1], dim=0)) for rows in on_parameters]
    norms = torch.stack([rows.norm(dim=1).log() for rows in on_parameters]).mean(dim=0).exp()
    assert found.trained.cosines.mean[0, 1] == pytest.approx(np.mean(cosines), abs=1e-12)
    half = stats.t.ppf(0.975, 5) * np.std(cosines, ddof=1) / np.sqrt(6)
    assert found.trained.cosines.high[0, 1] - np.mean(cosines) == pytest.approx(half, rel=0.02)
    assert found.trained.norms.tolist() == pytest.approx(norms.tolist(), rel=1e-12)
    assert found.trained.feature_cosines is not None
    expected = np.mean([float(functional.cosine_similarity(rows[0], rows[1], dim=0)) for rows in on_features])
    assert found.trained.feature_cosines.mean[0, 1] == pytest.approx(expected, abs=1e-12)
    weighted = [found.weights[task] * norm for task, norm in zip(found.tasks, norms.tolist(), strict=True)]
    assert weighted[0] == pytest.approx(weighted[1], rel=1e-12)


def test_diagnosis_noise_scale_equals_that_of_a_known_distribution() -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros((4000, 2, 10))  # task 0: mean of squared length 4, noise of variance 1 in 10 directions
    rows[:, 0] = rng.normal(size=(4000, 10)) + 2 * np.eye(10)[0]
    rows[:, 1] = 0.5 * rng.normal(size=(4000, 10)) - np.eye(10)[0]
    gramians = np.einsum("ksn,ktn->kst", rows, rows)
    total = rows.sum(axis=0)
    noise, least, cosines = noise_and_expected_cosines(gramians, total @ total.T, with_earlier(rows))
    assert noise.tolist() == pytest.approx([10 / 4, 10 * 0.25 / 1], rel=0.1)
    assert cosines[0, 1] == pytest.approx(-1, abs=0.01)
    assert (least < noise).all()


def with_earlier(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.einsum("ktn,ktn->kt", rows, np.cumsum(rows, axis=0) - rows))


def test_diagnosis_noise_has_a_lower_bound_that_holds() -> None:
    rng = np.random.default_rng(5)
    below = 0
    for _ in range(200):  # squared length 1, noise of variance 40 in 400 directions
        rows = np.sqrt(0.1) * rng.normal(size=(16, 1, 400)) + np.eye(400)[0]
        total = rows.sum(axis=0)
        _, least, _ = noise_and_expected_cosines(
            np.einsum("ksn,ktn->kst", rows, rows), total @ total.T, with_earlier(rows)
        )
        below += least[0] <= 40
    assert below >= 185


def test_diagnosis_noise_is_infinite_where_batches_do_not_resolve_the_gradient() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 1, 1000))
    total = rows.sum(axis=0)
    noise, least, _ = noise_and_expected_cosines(
        np.einsum("ksn,ktn->kst", rows, rows), total @ total.T, with_earlier(rows)
    )
    assert noise[0] == np.inf
    assert least[0] > 5


@pytest.mark.parametrize("probability", [0.9, 0.975, 0.999, 0.9999])
@pytest.mark.parametrize("freedom", [7, 11, 23, 100])
def test_diagnosis_student_quantile_is_that_of_scipy(probability: float, freedom: int) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=0.02)


def test_diagnosis_intervals_cover_several_means_together() -> None:
    values = np.random.default_rng(2).normal(size=(12, 400, 10))  # 12 batches, 400 repetitions of 10 pairs
    _, low, high = mean_bounds(values, comparisons=10)
    covered = ((low < 0) & (high > 0)).all(axis=1).mean()
    assert 0.92 < covered < 0.98


def test_diagnosis_layers_are_those_of_the_model() -> None:
    found = pt.diagnose(model(), independent, batches(), measured=6, warmup=2)
    assert list(found.trained.layers) == ["encoder.0", "encoder.1", "encoder.4"]
    many = [f"net.{number}.weight" for number in range(40)]
    grouped = group_names(many)
    assert len(grouped) <= 12
    own = group_names(["encoder.position", "encoder.0.weight", "encoder.1.weight", "encoder.1.bias"])
    assert own == {"encoder.position": [0], "encoder.0": [1], "encoder.1": [2, 3]}
    assert group_names(["a.scale", "a.0.weight", "b.weight"]) == {"a": [0, 1], "b": [2]}
    assert sorted(index for group in grouped.values() for index in group) == list(range(40))


def test_diagnosis_trial_steps_along_the_sum_increase_a_small_loss_of_opposite_gradient() -> None:
    losses_of = regressions(a=lambda x: x[:, 0], b=lambda x: x[:, 0])

    class Opposite(MultiTaskModel):
        def forward(self, inputs: Any) -> dict[str, Any]:
            output = self.heads["a"](self.encoder(inputs))
            return {"a": output, "b": -output}

    torch.manual_seed(1)
    net = Opposite(nn.Linear(6, 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})

    def scaled(model: Any, x: Tensor) -> dict[str, Tensor | None]:
        losses = losses_of(model, x)
        assert losses["b"] is not None
        return {"a": losses["a"], "b": 20 * losses["b"]}

    found = pt.diagnose(net, scaled, batches(40), measured=14, warmup=0)
    assert found.trials.sum.same[0] == 1  # the sum follows task b, whose gradient is opposite
    assert found.trials.sum.same[1] == 0


# --- what follows from it ------------------------------------------------------------------------------------------------


class Pictures(nn.Module):
    """A convolutional network with batch norm, a classification, a regression and a segmentation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, 8):
            layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        pooled = {"kind": 3, "amount": 1}
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n)) for task, n in pooled.items()}
        )
        self.heads["mask"] = nn.Conv2d(8, 1, 1)

    def losses(self, x: Tensor, unit: float) -> dict[str, Tensor]:
        outputs = {task: head(self.encoder(x)) for task, head in self.heads.items()}
        kind, amount = x.mean(dim=(1, 2, 3)).mul(20).long().clamp(0, 2), unit * x.amax(dim=(1, 2, 3))
        return {
            "kind": functional.cross_entropy(outputs["kind"], kind),
            "amount": functional.mse_loss(outputs["amount"][:, 0], amount),
            "mask": functional.binary_cross_entropy_with_logits(outputs["mask"], (x > 0.8).float()),
        }


def pictures(seed: int, unit: float, **options: Any) -> pt.Diagnosis:
    torch.manual_seed(seed)
    data = [torch.randn(24, 1, 8, 8) + 0.1 * torch.randn(24, 1, 1, 1) for _ in range(20)]
    return pt.diagnose(Pictures(), lambda model, x: model.losses(x, unit), data, measured=10, **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_diagnosis_trial_steps_agree_with_a_verdict_to_scale_the_losses(seed: int) -> None:
    """The targets of the regression are of scale 1000, far from its initial outputs."""
    found = pictures(seed, 1000.0, warmup=30)
    assert found.trained.ratio > 1000
    assert found.trials.scaled.any_task <= 0.25
    assert found.trials.sum.any_task >= found.trials.scaled.any_task
    assert found.verdict.startswith((f"{NO_CONFLICT}, scale", "scales and directions"))


@pytest.mark.parametrize("unit", [30.0, 1000.0])
def test_diagnosis_trial_steps_are_of_the_same_length_in_all_units_of_a_loss(unit: float) -> None:
    """Without a training the only difference is the factor of a loss, and of its weight for equal norms."""
    torch.manual_seed(7)
    net = Pictures()
    data = [torch.randn(24, 1, 8, 8) for _ in range(8)]

    def diagnosed(factor: float) -> pt.Diagnosis:
        def losses_of(model: Any, x: Tensor) -> dict[str, Tensor]:
            losses = model.losses(x, 10.0)
            return {**losses, "amount": factor * losses["amount"]}

        return pt.diagnose(net, losses_of, data, measured=8, warmup=0)

    one, other = diagnosed(1.0).trials, diagnosed(unit).trials
    assert one.scaled.same.tolist() == other.scaled.same.tolist()
    assert one.own.tolist() == other.own.tolist()


def test_diagnosis_of_independent_tasks_of_like_scale_recommends_the_sum() -> None:
    found = pt.diagnose(model(), independent, batches(60), measured=16, warmup=40)
    assert found.verdict == "no conflict worth treating: use the sum"
    assert found.trained.ratio < 5
    assert found.problems == ()


def test_diagnosis_of_unlike_scales_recommends_scaled_losses_with_weights_that_scale_them() -> None:
    found = pt.diagnose(
        model(), regressions(a=lambda x: x[:, 0], b=lambda x: 100 * x[:, 1]), batches(60), measured=16, warmup=40
    )
    assert found.verdict == "no conflict worth treating: use the sum, scale the losses"
    assert found.weights["a"] / found.weights["b"] == pytest.approx(found.trained.ratio)
    assert found.trained.ratio > 10
    assert any("IMTLG" in each.recommendation for each in found.advice)


def test_diagnosis_of_opposite_targets_finds_the_conflict_with_its_pair() -> None:
    class OneHead(MultiTaskModel):
        def forward(self, inputs: Any) -> dict[str, Any]:
            output = self.heads["a"](self.encoder(inputs))
            return dict.fromkeys(self.heads, output)

    torch.manual_seed(0)
    net = OneHead(nn.Sequential(nn.Linear(6, 16), nn.Tanh()), {"a": nn.Linear(16, 1), "b": nn.Linear(16, 1)})
    losses_of = regressions(a=lambda x: 3 * x[:, 0], b=lambda x: -3 * x[:, 0])
    found = pt.diagnose(net, losses_of, batches(60), measured=16, warmup=40)
    assert NO_CONFLICT not in found.verdict
    assert found.trained.cosines.high[0, 1] < -0.5
    assert "a and b -" in found.advice[0].reason


def test_diagnosis_of_tasks_with_own_inputs_recommends_the_balancer_alone() -> None:
    net = model(middle=nn.ReLU())

    def losses_of(model: Any, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        one, other = (model.heads[task](model.encoder(x)) for task, x in zip("ab", pair, strict=True))
        return {"a": (one[:, 0] - pair[0][:, 0]).square().mean(), "b": (other[:, 0] - pair[1][:, 1]).square().mean()}

    data = batches(40)
    found = pt.diagnose(net, losses_of, list(zip(data[:20], data[20:], strict=True)), measured=10, warmup=5)
    own = [each for each in found.advice if "inputs of their own" in each.condition]
    assert "pt.Balancer" in own[0].recommendation
    assert not any("Fork(" in each.recommendation for each in found.advice)
    unknown = pt.diagnose(
        nn.ModuleDict({"encoder": net.encoder, "tops": net.heads}),
        lambda m, pair: losses_of(_Parts(m), pair),
        list(zip(data[:20], data[20:], strict=True)),
        measured=10,
        warmup=0,
    )
    assert unknown.features is None
    assert any("inputs of their own" in each.condition for each in unknown.advice)


class _Parts:
    def __init__(self, parts: Any) -> None:
        self.encoder, self.heads = parts["encoder"], parts["tops"]


ABSENT: dict[str, Callable[[Tensor], dict[str, Any]]] = {
    "left out": lambda loss: {},
    "none": lambda loss: {"a": None},
    "zero": lambda loss: {"a": torch.tensor(0.0)},
    "number": lambda loss: {"a": 0.0},
    "masked": lambda loss: {"a": 0 * loss},
}


def with_missing_labels(form: str) -> pt.Diagnosis:
    def losses_of(model: Any, x: Tensor) -> dict[str, Any]:
        losses: dict[str, Any] = dict(independent(model, x))
        return losses if float(x[0, 0]) > 0 else {"b": losses["b"], **ABSENT[form](losses["a"])}

    data = batches(60)
    there = [batch for batch in data if float(batch[0, 0]) > 0]
    return pt.diagnose(model(), losses_of, [*there[:6], *data], measured=16, warmup=10)


def test_diagnosis_takes_a_task_without_labels_in_every_form_that_a_balancer_takes() -> None:
    expected = with_missing_labels("left out")
    for form in ("none", "zero", "number"):
        found = with_missing_labels(form)
        assert set(found.tasks) == {"a", "b"}
        assert found.text == expected.text
    assert np.isfinite(expected.trained.losses).all()


@pytest.mark.parametrize("form", [*ABSENT])
def test_diagnosis_advises_to_leave_a_task_out_only_where_it_is_not(form: str) -> None:
    missing = [each for each in with_missing_labels(form).advice if each.condition == "missing labels"]
    assert len(missing) == (form == "masked")
    assert all(each.reason.startswith("a had a loss without a gradient") for each in missing)


def test_diagnosis_reason_has_the_share_of_every_kind_of_trial_step() -> None:
    found = pt.diagnose(model(), independent, batches(), measured=8, warmup=5)
    kinds = (found.trials.sum, found.trials.scaled, found.trials.training)
    shares = re.findall(r"(\d+) %", found.advice[0].reason)
    assert shares == [f"{100 * each.any_task:.0f}" for each in kinds]


def test_diagnosis_of_many_tasks_recommends_the_features() -> None:
    tasks = tuple(f"t{number}" for number in range(22))
    net = model(tasks=tasks)
    losses_of = regressions(**{task: lambda x, place=place: x.roll(place, 1)[:, 0] for place, task in enumerate(tasks)})
    found = pt.diagnose(net, losses_of, batches(8), measured=5, warmup=0)
    many = [each for each in found.advice if each.condition.startswith("more than 20")]
    assert "pt.Fork" in many[0].recommendation
    assert "22 backwards" in many[0].reason


# --- the model is not changed --------------------------------------------------------------------------------------------


def test_diagnosis_leaves_model_gradients_mode_and_random_states_as_they_were() -> None:
    net = model()
    net.eval()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(net.state_dict())
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002
    loader: Any = torch.utils.data.DataLoader(torch.cat(batches(30)), batch_size=24, shuffle=True)  # type: ignore[arg-type]
    pt.diagnose(net, independent, loader, measured=8, warmup=12)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002
    assert after == states
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in net.parameters())  # type: ignore[union-attr]
    assert not any(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


def test_diagnosis_is_equal_when_repeated() -> None:
    found = [pt.diagnose(model(), independent, batches(20), measured=6, warmup=6).to_json() for _ in range(2)]
    assert found[0] == found[1]


def test_diagnosis_of_a_model_with_a_fork_is_that_without() -> None:
    class Forked(MultiTaskModel):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))

        def forward(self, inputs: Any) -> dict[str, Any]:
            branch = self.fork(self.encoder(inputs))
            return {task: head(branch[task]) for task, head in self.heads.items()}

    torch.manual_seed(0)
    net = MultiTaskModel(nn.Linear(6, 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
    forked = Forked(net.encoder, dict(net.heads))
    plain, other = (pt.diagnose(each, independent, batches(), measured=6, warmup=5) for each in (net, forked))
    assert other.trained.norms.tolist() == pytest.approx(plain.trained.norms.tolist(), rel=1e-6)


class Branched(nn.Module):
    """A body, heads and a Fork under names of their own."""

    def __init__(self, tasks: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__()
        self.body, self.fork = nn.Linear(6, 8), pt.Fork(pt.MGDA(), tasks=tasks)
        self.outs = nn.ModuleDict({task: nn.Linear(8, 1) for task in tasks})

    def forward(self, inputs: Any) -> dict[str, Any]:
        branch = self.fork(self.body(inputs))
        return {task: out(branch[task]) for task, out in self.outs.items()}


@pytest.mark.parametrize("seed", [2, 9])
def test_diagnosis_of_a_model_with_a_fork_takes_its_input_as_the_features(seed: int) -> None:
    torch.manual_seed(seed)
    net = Branched()
    options: dict[str, Any] = {"measured": 6, "warmup": 5}
    found = pt.diagnose(net, independent, batches(), **options)
    named = pt.diagnose(net, independent, batches(), features="body", **options)
    forked = pt.diagnose(net, independent, batches(), features="fork", **options)
    assert (found.features, named.features) == ("fork", "body")
    for other in (named, forked):
        assert found.trained.feature_norms is not None
        assert other.trained.feature_norms is not None
        assert found.trained.feature_norms.tolist() == other.trained.feature_norms.tolist()
    assert "unknown" not in found.text


def test_diagnosis_of_a_model_with_an_inserted_fork_takes_its_input_as_the_features() -> None:
    plain = model()
    pt.fork_at(plain, "encoder", heads={"a": "heads.a", "b": "heads.b"})
    found = pt.diagnose(plain, independent, batches(), measured=6, warmup=5)
    named = pt.diagnose(model(), independent, batches(), measured=6, warmup=5)
    assert found.features == "fork"
    assert found.trained.feature_norms is not None
    assert named.trained.feature_norms is not None
    assert found.trained.feature_norms.tolist() == pytest.approx(named.trained.feature_norms.tolist(), rel=1e-6)


def test_diagnosis_names_a_task_that_does_not_depend_on_the_input_of_the_fork() -> None:
    class Beside(Branched):
        def forward(self, inputs: Any) -> dict[str, Any]:
            outputs = super().forward(inputs)
            return outputs | {"b": self.outs["b"](self.body(inputs.flip(1)))}

    found = pt.diagnose(Beside(), independent, batches(), measured=6, warmup=5)
    assert any("'b' does not depend on the input of 'fork'" in problem for problem in found.problems)


def test_diagnosis_batches_may_be_a_generator_and_are_trained_on_again() -> None:
    found = pt.diagnose(model(), independent, iter(batches(9)), measured=6, warmup=20)
    assert (found.batches, found.trained.steps) == (6, 20)


def test_diagnosis_as_json_contains_plain_values() -> None:
    found = pt.diagnose(model(), independent, batches(), measured=5, warmup=0)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["tasks"] == ["a", "b"]
    assert found.verdict[1:] in str(found)
