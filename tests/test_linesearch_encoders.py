"""Line searches on encoders of every kind: slopes, forward mode, resuming, refusals."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paretorch as pt
from paretorch.linesearch import LineSearch, SearchOutcome

TASKS = ("a", "b")


class Attention(nn.Module):
    """Two heads of scaled dot products over five tokens, through the fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).view(len(x), 5, 3, 2, 2).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 5, 4)
        out: Tensor = self.out(found)
        return out.mean(dim=1)


class LastState(nn.Module):
    """The last state of an LSTM over five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x)[0]
        return out[:, -1]


class NoForwardMode(torch.autograd.Function):
    """A sine that can be differentiated twice, backward only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = gradients[0] * x.cos()
        return result


class OnlyOnce(NoForwardMode):
    """The same, which can be differentiated once."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return NoForwardMode.backward(ctx, *gradients)


class Custom(nn.Module):
    """A linear layer and a function of one's own."""

    def __init__(self, function: type[NoForwardMode]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(20, 4), function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function.apply(self.linear(x.flatten(1)))
        return out


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 4))


def in_place() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(20, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.LeakyReLU(0.2, inplace=True)
    )


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "lstm": LastState,
    "batch norm": batch_norm,
    "dropout": dropout,
    "in place": in_place,
    "without forward mode": partial(Custom, NoForwardMode),
}
SEARCHES: dict[str, Callable[..., LineSearch]] = {
    "classical": pt.Backtracking,
    **{
        name: partial(pt.FastBacktracking, displacement=name, samples=None)
        for name in ("gradient", "linearised", "difference", "calibrated")
    },
}


class EncoderModel(nn.Module):
    encoder: nn.Module
    heads: nn.ModuleDict

    def __init__(self, encoder: Callable[[], nn.Module], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = encoder()
        self.heads = nn.ModuleDict({task: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)) for task in TASKS})
        self.double()

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        """In place on the features in each head, so on a copy for each."""
        return {
            task: (head(z.clone()) - (1 if task == "a" else -2)).square().mean() for task, head in self.heads.items()
        }


def inputs(samples: int = 16) -> Tensor:
    return torch.randn(samples, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def warnings_and_steps(
    search: LineSearch, x: Tensor, model: EncoderModel, steps: int
) -> tuple[list[str], list[pt.Step]]:
    """The warnings of some steps, and the steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        taken = [search.step(x, model.losses) for _ in range(steps)]
    return [str(each.message) for each in caught], taken


# --- slopes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classical", "linearised"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_slopes_equal_finite_differences_of_the_whole_model(encoder: str, name: str) -> None:
    model, x, size = EncoderModel(ENCODERS[encoder]), inputs(), 1e-5
    start = copy.deepcopy(model)
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), max_step=size)
    torch.manual_seed(7)
    messages, (step,) = warnings_and_steps(search, x, model, 1)
    assert step.step == size
    assert not step.fallback
    behind = copy.deepcopy(start)
    with torch.no_grad():
        for leaf, old, new in zip(behind.parameters(), start.parameters(), model.parameters(), strict=True):
            leaf.copy_(2 * old - new)
    ends = []
    for end in (behind, model):
        torch.manual_seed(7)  # the masks of the step
        ends.append({task: float(loss.detach()) for task, loss in end.losses(end.encoder(x)).items()})
    for task in TASKS:
        assert (ends[0][task] - ends[1][task]) / (2 * size) == pytest.approx(step.slopes[task], rel=1e-6)
    assert len(messages) == (encoder == "without forward mode" and name == "linearised")


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.sampled(3)
def test_every_search_trains_every_encoder(encoder: str, name: str) -> None:
    model, x = EncoderModel(ENCODERS[encoder]), inputs()
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), verify=1)
    _, taken = warnings_and_steps(search, x, model, 25)
    first, last = taken[0].losses, taken[-1]
    assert last.accepted
    assert all(last.actual[task] < 0.9 * float(first[task]) for task in TASKS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("encoder", ["attention", "lstm"])
def test_linearised_slopes_of_fused_kernels_equal_differences(encoder: str, dtype: torch.dtype) -> None:
    model, x = EncoderModel(ENCODERS[encoder]).to(dtype), inputs().to(dtype)
    twin = copy.deepcopy(model)
    moved = {}
    for name, each in (("linearised", model), ("difference", twin)):
        search = SEARCHES[name](each.encoder, each.heads, pt.MGDA(), max_step=1e-3)
        _, (step,) = warnings_and_steps(search, x, each, 1)
        moved[name] = [step.slopes[task] for task in TASKS]
    assert moved["linearised"] == pytest.approx(moved["difference"], rel=2e-2)


# --- forward mode --------------------------------------------------------------------------------------------------------


def test_encoder_without_forward_mode_warns_once() -> None:
    model, x = EncoderModel(ENCODERS["without forward mode"]), inputs()
    search = SEARCHES["linearised"](model.encoder, model.heads, pt.MGDA())
    messages, taken = warnings_and_steps(search, x, model, 4)
    assert all(step.accepted for step in taken)
    assert len(messages) == 1
    assert "no forward-mode derivative" in messages[0]
    assert "double backward" in messages[0]
    assert "displacement='difference'" in messages[0]


def test_encoder_without_second_derivative_is_refused() -> None:
    model, x = EncoderModel(partial(Custom, OnlyOnce)), inputs()
    before = copy.deepcopy(model.state_dict())
    search = SEARCHES["linearised"](model.encoder, model.heads, pt.MGDA())
    with (
        pytest.warns(UserWarning, match="double backward"),
        pytest.raises(ValueError, match="displacement='difference'"),
    ):
        search.step(x, model.losses)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    other = SEARCHES["difference"](model.encoder, model.heads, pt.MGDA())
    assert other.step(x, model.losses).accepted


# --- resuming ----------------------------------------------------------------------------------------------------------


def noisy() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 4)
    )


@pytest.mark.parametrize("options", [{}, {"memory": "smoothed", "bound": "regression"}], ids=["plain", "memory"])
@pytest.mark.parametrize("name", SEARCHES)
def test_stored_search_resumes_bit_identically(name: str, options: dict[str, Any]) -> None:
    model, x = EncoderModel(noisy), inputs(40)
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), **options)
    batches = [x[:20], x[20:]] * 10
    warnings_and_steps(search, batches[0], model, 4)
    stored, random = copy.deepcopy(search.state_dict()), torch.get_rng_state()
    twin = copy.deepcopy(model)
    for batch in batches:
        warnings_and_steps(search, batch, model, 1)
    other = SEARCHES[name](twin.encoder, twin.heads, pt.MGDA(), **options)
    other.load_state_dict(stored)
    torch.set_rng_state(random)
    for batch in batches:
        warnings_and_steps(other, batch, twin, 1)
    assert other.steps == search.steps == 24
    for (key, one), two in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, two), key
    assert _plain(search.state_dict()) == _plain(other.state_dict())


def _plain(state: Any) -> Any:
    """Comparable by ==, nan equal to nan."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, Tensor):
        return _plain(state.tolist())
    if isinstance(state, (list, tuple)):
        return [_plain(each) for each in state]
    return "nan" if isinstance(state, float) and math.isnan(state) else state


# --- no step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classical", "linearised", "difference"])
def test_decrease_below_rounding_is_noise_and_named(name: str) -> None:
    model, x = EncoderModel(in_place), inputs()
    before = copy.deepcopy(model.state_dict())
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), max_step=1e-4)
    calls = 0

    def rounded(z: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        # of so large a number, sixteen digits do not show what a step changes; and a unit of rounding it is off in trials
        return {task: loss + (1e16 + 2 * (calls > 1)) for task, loss in model.losses(z).items()}

    step = search.step(x, rounded)
    assert step.outcome is SearchOutcome.NOISE
    assert step.step == 0
    assert step.reason.startswith("noise: ")
    assert re.search(r"of task '\w+' \(loss", step.reason)
    assert "loss 1e+16" in step.reason
    assert "float64" in step.reason
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("make", [pt.Backtracking, pt.FastBacktracking])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_step": 0.0}, "max_step, if it is not None, must be above 0 and finite, got 0"),
        ({"max_step": -2.0}, "max_step, if it is not None, must be above 0 and finite, got -2"),
        ({"max_step": math.inf}, "max_step, if it is not None, must be above 0 and finite, got inf"),
        ({"shrink": 0.0}, r"shrink, if it is not 'violation', must be in \(0, 1\), got 0"),
        ({"shrink": 1.5}, r"shrink, if it is not 'violation', must be in \(0, 1\), got 1.5"),
        ({"beta": 0.0}, r"beta, a share of the slope, must be in \(0, 1\), got 0"),
        ({"beta": 1.0}, r"beta, a share of the slope, must be in \(0, 1\), got 1"),
        ({"imbalance": 0.5}, "imbalance is a ratio of curvatures, at least 1, or inf, got 0.5"),
        ({"imbalance": math.nan}, "imbalance is a ratio of curvatures, at least 1, or inf, got nan"),
    ],
)
def test_options_out_of_range_are_refused_with_the_expected_range(
    make: Callable[..., LineSearch], options: dict[str, Any], message: str
) -> None:
    model = EncoderModel(in_place)
    with pytest.raises(ValueError, match=message):
        make(model.encoder, model.heads, pt.MGDA(), **options)


def test_loss_that_bypasses_the_features_is_refused_by_name() -> None:
    model, x = EncoderModel(in_place), inputs()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    with pytest.raises(
        ValueError, match=r"the loss of task 'b' reaches the encoder past the features .* use Backtracking"
    ):
        search.step(x, lambda z: {**model.losses(z), "b": model.losses(model.encoder(x))["b"]})
    with pytest.raises(ValueError, match="the loss of task 'b' does not come from the features"):
        search.step(x, lambda z: {**model.losses(z), "b": next(model.heads["b"].parameters()).sum()})


def test_undeclared_task_is_refused() -> None:
    model, x = EncoderModel(in_place), inputs()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    with pytest.raises(ValueError, match="c"):
        search.step(x, lambda z: {**model.losses(z), "c": z.sum()})


def test_state_of_other_tasks_is_refused() -> None:
    model, x = EncoderModel(in_place), inputs()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    search.step(x, model.losses)
    stored = search.state_dict()
    other = pt.FastBacktracking(model.encoder, nn.ModuleDict({"left": nn.Linear(4, 2)}), pt.MGDA())
    with pytest.raises(ValueError, match=r"tasks .*'a', 'b'.* has .*'left'"):
        other.load_state_dict(stored)
