"""Line searches on networks: acceptance, number of forwards, side effects, state, options."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import SEARCHES
from paretorch.linesearch import LineSearch, SearchOutcome
from small_models import Net, data, losses_of

Searching = Callable[..., LineSearch]


def closure(model: Net, targets: Mapping[str, Tensor]) -> Callable[[Any], dict[str, Tensor]]:
    return lambda z: losses_of({task: head(z) for task, head in model.heads.items()}, dict(targets))


def whole(model: Net, x: Tensor, targets: dict[str, Tensor]) -> dict[str, float]:
    with torch.no_grad():
        return {task: float(loss) for task, loss in losses_of(model(x), targets).items()}


# --- acceptance ----------------------------------------------------------------------------------------------------


def rounded(x: Tensor, number: int) -> Tensor:
    """The inputs, each perturbed by at most one unit of its rounding; number 0 is unperturbed."""
    signs = torch.randint(-1, 2, x.shape, generator=torch.Generator().manual_seed(number))
    return x * (1 + (number > 0) * signs * torch.finfo(x.dtype).eps)


@pytest.mark.parametrize("method", [pt.MGDA(), pt.UPGrad(), pt.Equal(), pt.PCGrad()], ids=repr)
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.sampled(3)
def test_accepted_steps_fulfil_the_condition_for_every_task(name: str, seed: int, method: pt.Method[Any]) -> None:
    for number in range(3):
        model, (x, targets) = Net(seed=seed), data(seed=seed)
        x = rounded(x, number)
        search = SEARCHES[name](model.encoder, model.heads, method, beta=0.3)
        first, accepted = whole(model, x, targets), 0
        for _ in range(5):
            step = search.step(x, closure(model, targets))
            accepted += step.accepted
            for task, loss in step.losses.items() if step.accepted else ():
                assert step.slopes[task] > 0
                assert step.predicted[task] < float(loss)
                assert step.predicted[task] <= float(loss) - step.step * 0.3 * step.slopes[task]
        assert accepted >= 4
        last = whole(model, x, targets)
        assert all(last[task] < first[task] for task in first)
        assert sum(last.values()) < 0.997 * sum(first.values())


@pytest.mark.parametrize("seed", range(5))
def test_backtracking_predicts_the_true_losses(seed: int) -> None:
    model, (x, targets) = Net(seed=seed), data(seed=seed)
    search = pt.Backtracking(model.encoder, model.heads, pt.MGDA())
    step = search.step(x, closure(model, targets))
    assert step.predicted == whole(model, x, targets)


@pytest.mark.parametrize("name", ["classical", "difference"])
def test_every_kth_step_is_verified(name: str) -> None:
    model, (x, targets) = Net(), data()
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), verify=3)
    steps = [search.step(x, closure(model, targets)) for _ in range(7)]
    assert all(step.accepted for step in steps)
    assert [bool(step.actual) for step in steps] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("name", ["linearised", "difference"])
def test_true_displacement_decreases_the_true_losses(name: str) -> None:
    model, (x, targets) = Net(seed=3), data()
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), samples=None, verify=1)
    for _ in range(40):
        before = whole(model, x, targets)
        step = search.step(x, closure(model, targets))
        after = whole(model, x, targets)
        assert step.accepted
        assert step.actual == pytest.approx(after, rel=1e-12)
        assert all(after[task] < before[task] for task in before)


@pytest.mark.parametrize("name", ["classical", "linearised"])
def test_slopes_equal_finite_differences(name: str) -> None:
    for seed in range(4):
        model, (x, targets) = Net(seed=seed), data(seed=seed)
        whole_batch = {} if name == "classical" else {"samples": None}
        search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), max_step=1e-5, **whole_batch)
        before = whole(model, x, targets)
        step = search.step(x, closure(model, targets))
        assert step.step == 1e-5
        after = whole(model, x, targets)
        # the central difference, from the point on the other side
        there = {key: value.clone() for key, value in model.state_dict().items()}
        start = copy.deepcopy(Net(seed=seed)).state_dict()
        model.load_state_dict({key: 2 * start[key] - there[key] for key in there})
        behind = whole(model, x, targets)
        for task in before:
            assert (behind[task] - after[task]) / 2e-5 == pytest.approx(step.slopes[task], rel=1e-6)


def test_first_trial_of_a_difference_gives_the_true_losses() -> None:
    model, (x, targets) = Net(seed=1), data()
    search = pt.FastBacktracking(
        model.encoder, model.heads, pt.MGDA(), displacement="difference", samples=None, max_step=0.01, verify=1
    )
    search.step(x, closure(model, targets))
    step = search.step(x, closure(model, targets))
    assert step.first
    assert step.predicted == pytest.approx(step.actual, rel=1e-12)


class Rotated(nn.Module):
    """Two features whose Jacobian maps their common descent direction to one that increases a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("matrix", torch.tensor([[1.0, 0.0], [-3.0, 0.5]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.matrix @ self.point) + 0 * x  # type: ignore[operator]


def rotated(z: Tensor) -> dict[str, Tensor]:
    return {"first": (z[0] - 1).square() + 0 * z[1], "second": 0.1 * (z[1] - 1).square() + 0.01 * z[0]}


def test_direction_that_increases_a_loss_is_replaced() -> None:
    x = torch.zeros(2, dtype=torch.float64)
    for name in ("classical", "linearised", "difference"):
        encoder = Rotated()
        search = SEARCHES[name](encoder, nn.ModuleDict(), pt.Equal(), verify=1)
        step = search.step(x, rotated)
        assert step.fallback
        assert "second" in step.fallback
        assert step.accepted
        assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


# --- forwards and side effects -------------------------------------------------------------------------


class CallCounter(nn.Module):
    """Counts calls of a module, and backwards through its output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        z: Tensor = self.inner(x)
        if z.requires_grad:
            z.register_hook(self._counted)
        return z

    def _counted(self, gradient: Tensor) -> None:
        self.backwards += 1


@pytest.mark.parametrize(
    ("options", "forwards"),
    [
        ({"displacement": "gradient"}, 1),
        ({"displacement": "linearised", "samples": None}, 2),
        ({"displacement": "difference", "samples": None}, 2),
        ({"displacement": "calibrated", "samples": None, "every": 4}, 1.25),
    ],
)
@pytest.mark.parametrize("shrink", [0.9, 0.1])
def test_encoder_forwards_are_independent_of_the_number_of_trials(
    options: dict[str, Any], forwards: float, shrink: float
) -> None:
    model, (x, targets) = Net(), data()
    counted = CallCounter(model.encoder)
    search = pt.FastBacktracking(counted, model.heads, pt.MGDA(), max_step=1000.0, shrink=shrink, **options)
    trials = [search.step(x, closure(model, targets)).trials for _ in range(8)]
    assert sum(trials) > 16
    # a secant is taken anew where the step has changed: on this network at most once in a step
    renewed = counted.forwards - 8 * forwards
    assert 0 <= renewed <= (8 if options["displacement"] == "difference" else 0)
    assert counted.backwards == 8


def test_backtracking_runs_the_encoder_once_for_each_trial() -> None:
    model, (x, targets) = Net(), data()
    counted = CallCounter(model.encoder)
    search = pt.Backtracking(counted, model.heads, pt.MGDA(), max_step=1000.0)
    step = search.step(x, closure(model, targets))
    assert counted.forwards == 1 + step.trials
    assert counted.backwards == 3


class NoisyModel(nn.Module):
    """Dropout, BatchNorm and in-place ReLU in the encoder and in a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(5, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(8, 6),
            nn.ReLU(inplace=True),
        )
        self.heads = nn.ModuleDict(
            {
                "a": nn.Sequential(
                    nn.Dropout(0.5), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 2)
                ),
                "b": nn.Linear(6, 2),
            }
        )


@pytest.mark.parametrize("name", ["classical", "gradient", "linearised", "difference"])
def test_trials_repeat_masks_and_update_statistics_once(name: str) -> None:
    torch.manual_seed(0)
    model = NoisyModel().double()
    x, targets = data()
    twin = copy.deepcopy(model)
    values: list[float] = []

    def of(z: Tensor) -> dict[str, Tensor]:
        found = losses_of({task: head(z) for task, head in model.heads.items()}, targets)
        values.append(float(found["a"].detach()))
        return found

    torch.manual_seed(5)
    search = SEARCHES[name](
        model.encoder, model.heads, pt.MGDA(), max_step=1e-14
    )  # so small that a trial is the point itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.step(x, of)
    state = torch.get_rng_state()
    assert len(values) >= 2
    assert values[1:] == pytest.approx([values[0]] * (len(values) - 1), rel=1e-9)
    torch.manual_seed(5)
    z = twin.encoder(x)
    for head in twin.heads.values():
        head(z)
    assert torch.equal(state, torch.get_rng_state())
    for (key, one), other in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other), key


def test_rejected_step_restores_the_parameters() -> None:
    model, (x, targets) = Net(), data()
    before = copy.deepcopy(model.state_dict())
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), max_step=1.0)
    calls = 0

    def rising(z: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return {task: loss + 100 * (calls > 1) for task, loss in closure(model, targets)(z).items()}

    with pytest.warns(UserWarning, match=r"rejected: task '.' \(loss .*, slope .*\) did not decrease"):
        step = search.step(x, rising)
    assert step.outcome is SearchOutcome.REJECTED
    assert "smooth" in step.reason
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_stationary_point_is_reported() -> None:
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.at + 0 * x

    for make in (pt.Backtracking, pt.FastBacktracking):
        search = make(Point(), nn.ModuleDict(), pt.MGDA())
        step = search.step(
            torch.zeros(1, dtype=torch.float64),
            lambda z: {"up": (z + 1).square().sum(), "down": (z - 1).square().sum()},
        )
        assert step.outcome is SearchOutcome.STATIONARY
        assert "stationary" in step.reason
        assert step.step == 0


@pytest.mark.parametrize("make", [pt.Backtracking, pt.FastBacktracking])
def test_loss_that_is_not_finite_is_named_and_changes_nothing(make: Searching) -> None:
    model, (x, targets) = Net(), data()
    before = copy.deepcopy(model.state_dict())
    search = make(model.encoder, model.heads, pt.MGDA())
    targets["b"][0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="'b' is not finite"):
        search.step(x, closure(model, targets))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- losses_of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_tasks_can_be_absent_from_a_batch(name: str) -> None:
    model, (x, targets) = Net(), data()
    search = SEARCHES[name](model.encoder, model.heads, pt.MGDA(), memory="nonmonotone", bound="regression")
    full = closure(model, targets)
    head = {key: value.clone() for key, value in model.heads["b"].state_dict().items()}
    for cut in (
        lambda z: {"a": full(z)["a"], "c": full(z)["c"]},
        lambda z: {**full(z), "b": None},
        lambda z: {**full(z), "b": full(z)["b"] * 0},
    ):
        step = search.step(x, cut)
        assert step.accepted
        assert set(step.predicted) == {"a", "c"}
    assert all(torch.equal(value, head[key]) for key, value in model.heads["b"].state_dict().items())
    assert set(search.step(x, full).predicted) == {"a", "b", "c"}
    assert search.step(x, lambda z: {}).outcome is SearchOutcome.ABSENT


class Nested(nn.Module):
    """Features in a dict with a list, and a mask that is no feature."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        low = self.low(x).tanh()
        return {"maps": [low, self.high(low)], "mask": (x[:, :1] > 0)}


@pytest.mark.parametrize("name", SEARCHES)
def test_features_can_be_nested(name: str) -> None:
    torch.manual_seed(0)
    encoder, left, right = Nested().double(), nn.Linear(4, 2).double(), nn.Linear(3, 2).double()
    x, targets = data()

    def of(z: dict[str, Any]) -> dict[str, Tensor]:
        low, high = z["maps"]
        return {
            "left": (left(low) * z["mask"] - targets["a"]).square().mean(),
            "right": (right(high) - targets["b"]).square().mean(),
        }

    search = SEARCHES[name](encoder, {"left": left, "right": right}, pt.MGDA(), verify=1)
    first = {task: float(loss) for task, loss in search.step(x, of).losses.items()}
    for _ in range(20):
        step = search.step(x, of)
    assert step.accepted
    assert all(step.actual[task] < first[task] for task in first)


def test_loss_of_other_features_is_refused() -> None:
    model, (x, targets) = Net(), data()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    kept = model.encoder(x)
    for z_of, message in (
        (lambda z: z + 0 * model.encoder(x), "past the features"),
        (lambda z: kept.detach(), "does not come from"),
    ):
        with pytest.raises(ValueError, match=f"task 'a' .*{message}"):
            search.step(x, lambda z, z_of=z_of: closure(model, targets)(z_of(z)))


def test_heads_can_use_the_input() -> None:
    model, (x, targets) = Net(), data()
    search = pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
    step = search.step(x, lambda z: losses_of({t: h(z) + x[:, :2] for t, h in model.heads.items()}, targets))
    assert step.accepted


# --- state ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["gradient", "Adam", "Kronecker"])
@pytest.mark.parametrize(
    "options", [{"memory": "smoothed"}, {"memory": "nonmonotone", "start": "grow"}, {"bound": "sasa"}]
)
def test_resumed_search_takes_the_same_steps(options: dict[str, Any], direction: str) -> None:
    from paretorch.linesearch import Kronecker
    from paretorch.storage.nested_state import pack, unpack

    def made(model: Net) -> pt.FastBacktracking:
        parameters = [*model.encoder.parameters(), *model.heads.parameters()]
        directions = {"gradient": None, "Adam": torch.optim.Adam(parameters), "Kronecker": Kronecker(every=3)}
        return pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), direction=directions[direction], **options)

    x, targets = data()
    model = Net()
    search = made(model)
    for _ in range(5):
        search.step(x, closure(model, targets))
    search.end_epoch()
    twin = copy.deepcopy(model)
    other = made(twin)
    other.load_state_dict(unpack(*pack(search.state_dict())))
    for _ in range(8):
        one, two = search.step(x, closure(model, targets)), other.step(x, closure(twin, targets))
        assert (one.step, one.trials, one.predicted) == (two.step, two.trials, two.predicted)


# --- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [pt.Backtracking, pt.FastBacktracking])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_step": 0.0}, "max_step"),
        ({"max_step": -1.0}, "max_step"),
        ({"max_step": math.nan}, "max_step"),
        ({"shrink": 1.0}, "shrink"),
        ({"shrink": 0.0}, "shrink"),
        ({"beta": 0.0}, "beta"),
        ({"beta": 1.0}, "beta"),
        ({"floor": 0.0}, "floor"),
        ({"trial": "bisection"}, "trial"),
        ({"memory": "long"}, "memory"),
        ({"start": "late"}, "start"),
        ({"accept": "none"}, "accept"),
        ({"bound": "never"}, "bound"),
        ({"verify": -1}, "verify"),
        ({"verify": 2.5}, "verify"),
        ({"verify": True}, "verify"),
        ({"max_step": True}, "max_step"),
        ({"imbalance": True}, "imbalance"),
        ({"direction": 3}, "direction"),
    ],
)
def test_options_out_of_range_are_named(make: Searching, options: dict[str, Any], message: str) -> None:
    model = Net()
    with pytest.raises(ValueError, match=message):
        make(model.encoder, model.heads, pt.MGDA(), **options)


def test_incompatible_options_are_refused() -> None:
    from paretorch.linesearch import LBFGS

    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="displacement='gradient'"):
        pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), displacement="gradient", direction=optimizer)
    with pytest.raises(ValueError, match="use Backtracking"):
        pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), direction=LBFGS())
    with pytest.raises(ValueError, match="closure"):
        pt.Backtracking(model.encoder, model.heads, pt.MGDA(), direction=torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match="samples"):
        pt.FastBacktracking(model.encoder, model.heads, pt.MGDA(), samples=1.5)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is shared"):
        pt.FastBacktracking(model.encoder, model.heads, pt.MGDA())
