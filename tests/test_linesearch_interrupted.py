"""An exception within a step of a line search: everything is as before, and the repeated step is that without an exception."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import paretorch as pt
from line_searches import SEARCHES, is_possible
from paretorch.core.gradients.task_gradients import Row
from paretorch.linesearch import LBFGS, Kronecker, LineSearch, Metric, Orthogonal, newton
from small_models import head_losses
from test_interrupts import interrupted

TASKS = ("a", "b", "c")
STEPS = 4
Parameters = list[nn.Parameter]


class InPlace(Metric):
    """Adam's diagonal in a tensor that is changed in place."""

    def __init__(self) -> None:
        self.second: dict[int, Tensor] = {}

    def learn(self, gradient: Row) -> None:
        for index, part in enumerate(gradient):
            if part is not None:
                self.second.setdefault(index, torch.ones_like(part)).mul_(0.9).add_(part.square())

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        return [
            part if part is None or index not in self.second else part / self.second[index].sqrt()
            for index, part in enumerate(gradient)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"second": dict(self.second)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.second = dict(state_dict["second"])


class Counting(torch.optim.SGD):
    """Steps that decrease with a number in an attribute, and a momentum in a dict within the state."""

    taken = 0

    def step(self, closure: Any = None) -> Any:
        assert closure is None
        self.taken += 1
        with torch.no_grad():
            for group in self.param_groups:
                group["steps"] = self.taken
                for leaf in group["params"]:
                    if leaf.grad is not None:
                        moments = self.state[leaf].setdefault("moments", {"first": torch.zeros_like(leaf)})
                        moments["first"].mul_(0.5).add_(leaf.grad)
                        leaf.sub_(moments["first"], alpha=group["lr"] / self.taken)


DIRECTIONS: dict[str, Callable[[Parameters], Any]] = {
    "gradient": lambda _: None,
    "momentum": lambda leaves: torch.optim.SGD(leaves, lr=0.5, momentum=0.9),
    "Adam": lambda leaves: torch.optim.Adam(leaves, lr=1.0),
    "NAdam": lambda leaves: torch.optim.NAdam(leaves, lr=1.0),
    "own optimizer": lambda leaves: Counting(leaves, lr=1.0),
    "MTAdam": lambda leaves: pt.MTAdam(leaves, lr=1.0),
    "Preconditioned": lambda leaves: pt.Preconditioned(leaves, pt.RLW(), lr=1.0, tasks=TASKS),
    "Kronecker": lambda _: Kronecker(every=2),
    "Orthogonal": lambda _: Orthogonal(),
    "LBFGS": lambda _: LBFGS(),
    "own metric": lambda _: InPlace(),
}
METHODS = [pt.MGDA(), pt.RLW(), pt.DWA(), pt.ExcessMTL(), pt.CRMOGM(pt.CAGrad()), pt.GradVac(), pt.GradDrop()]
ERRORS = [KeyError, KeyboardInterrupt, FloatingPointError]
OPTIONS: list[dict[str, Any]] = [{"max_step": 50.0, "verify": 1}, {"memory": "smoothed", "bound": "regression"}]


PAIRS = [(name, direction) for name in SEARCHES for direction in DIRECTIONS if is_possible(name, direction)]


class Case:
    """A network with a search; every step has its own batch and its own random draws."""

    def __init__(self, name: str, direction: str, method: pt.Method[Any], options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        encoder = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 5), nn.Tanh()
        )
        self.heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in TASKS})
        self.net = nn.ModuleDict({"encoder": encoder, "heads": self.heads}).double()
        leaves = list(self.net.parameters())
        for leaf in leaves:
            leaf.grad = torch.ones_like(leaf)
        # as one module, so that the first losses declare the tasks
        heads = nn.Sequential(*self.heads.values())
        self.search: LineSearch = SEARCHES[name](
            encoder, heads, method, direction=DIRECTIONS[direction](leaves), **options
        )

    def step(self, number: int, error: type[BaseException] | None = None, call: int = 0) -> pt.Step:
        """One step; the error is raised in this call of ``losses_of``."""
        calls = 0

        def losses_of(z: Tensor) -> dict[str, Tensor]:
            nonlocal calls
            calls += 1
            if error is not None and calls == call:
                raise error("the data server is away")
            return head_losses(self.heads, z)

        x = torch.randn(24, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        torch.manual_seed(number)
        return self.search.step(x, losses_of)

    def state(self) -> dict[str, Any]:
        """All that a step changes, copied."""
        search, balance = self.search, self.search.balance
        state = {
            "net": self.net.state_dict(),
            "gradients": [leaf.grad for leaf in self.net.parameters()],
            "search": search.state_dict(),
            "state": search.state,
            "fast": getattr(search, "fast", None),
            "steps": search.steps,
            "last": None if search.last is None else (search.last.outcome, search.last.step, dict(search.last.losses)),
            "weights": None if balance is None else balance.weights,
        }
        return copy.deepcopy(state)


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, nan equal to nan."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor) and one.shape == other.shape and bool(torch.isclose(one, other, 0, 0, True).all())
        )
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other, equal_nan=True)
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other) or (isinstance(one, float) and one != one and other != other)


def check_retried_steps(case: Callable[[], Case], error: type[BaseException]) -> None:
    expected, case_with_errors = case(), case()
    for number in range(STEPS):
        expected.step(number)
        before, call = case_with_errors.state(), 1
        while number in (0, 2):
            try:
                case_with_errors.step(number, error, call)
            except error:
                assert same(case_with_errors.state(), before), (number, call)
                call += 1
            else:
                break
        else:
            case_with_errors.step(number)
        assert number not in (0, 2) or call > 2
        assert same(case_with_errors.state(), expected.state()), number
    assert expected.search.last is not None


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("name", "direction"), PAIRS)
@pytest.mark.sampled(5)
def test_step_after_an_exception_is_that_of_a_search_without_one(
    name: str, direction: str, error: type[BaseException]
) -> None:
    check_retried_steps(lambda: Case(name, direction, pt.RLW(), OPTIONS[0]), error)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.sampled(5)
def test_exception_restores_the_state_of_every_method(
    name: str, method: pt.Method[Any], options: dict[str, Any]
) -> None:
    check_retried_steps(lambda: Case(name, "gradient", method, options), KeyError)


@pytest.mark.parametrize(
    ("name", "direction"), [pair for pair in PAIRS if pair[1] in ("gradient", "Adam", "Preconditioned", "Kronecker")]
)
@pytest.mark.sampled(3)
def test_interrupt_at_any_line_undoes_the_step_or_comes_after_it(name: str, direction: str) -> None:
    def begun() -> Case:
        case = Case(name, direction, pt.CRMOGM(pt.CAGrad()), OPTIONS[0])
        case.step(0)
        return case

    reference = begun()
    before = reference.state()
    lines = interrupted(lambda: reference.step(1), 10**9)
    after = reference.state()
    undone = 0
    for line in random.Random(0).sample(range(1, lines + 1), 8):
        case = begun()
        interrupted(partial(case.step, 1), line)
        found = case.state()
        undone += same(found, before)
        assert same(found, before) or same(found, after), line
    assert undone >= 6


@pytest.mark.long
@pytest.mark.parametrize("file", ["direction_rules.py", "replay/forward.py", "contextlib.py"])
@pytest.mark.parametrize(("name", "direction"), [pair for pair in PAIRS if pair[1] in ("Adam", "Preconditioned")])
def test_interrupt_at_each_line_that_restores_something_undoes_the_step(name: str, direction: str, file: str) -> None:
    """The lines in which the parameters of a trial, or the buffers of a repeated forward, are set and restored."""

    def begun() -> Case:
        case = Case(name, direction, pt.MGDA(), OPTIONS[0])
        case.step(0)
        return case

    reference = begun()
    before = reference.state()
    lines = interrupted(lambda: reference.step(1), 10**9, file)
    after = reference.state()
    for line in range(1, lines + 1, max(1, lines // 40)):
        case = begun()
        interrupted(partial(case.step, 1), line, file)
        gc.collect()  # contexts of generators end with the traceback
        assert same(case.state(), before) or same(case.state(), after), line


@pytest.mark.parametrize("name", SEARCHES)
def test_first_step_that_fails_declares_no_task(name: str) -> None:
    case = Case(name, "Adam" if name != "gradient" else "gradient", pt.MGDA(), {"max_step": 1.0})
    with pytest.raises(KeyError):
        case.step(0, KeyError, 2)
    assert not case.search.tasks
    case.heads = nn.ModuleDict({task: case.heads[name] for task, name in zip("xyz", TASKS, strict=True)})
    assert case.step(0).accepted
    assert case.search.tasks == ("x", "y", "z")


def test_optimizer_that_fails_within_its_step_is_restored() -> None:
    class Failing(torch.optim.SGD):
        fails = True

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            if self.fails:
                raise KeyError("the optimizer fails")

    def case(fails: bool) -> Case:
        made = Case("classical", "gradient", pt.MGDA(), {"max_step": 1.0})
        optimizer = Failing(list(made.net.parameters()), lr=0.5, momentum=0.9)
        optimizer.fails = fails
        encoder: Any = made.net["encoder"]
        made.search = pt.Backtracking(encoder, made.heads, pt.MGDA(), max_step=1.0, direction=optimizer)
        return made

    failing, expected = case(True), case(False)
    before = failing.state()
    with pytest.raises(KeyError, match="the optimizer fails"):
        failing.step(0)
    assert same(failing.state(), before)
    failing.search.parts.direction.optimizer.fails = False  # type: ignore[attr-defined]
    failing.step(0)
    expected.step(0)
    assert same(failing.state(), expected.state())


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_newton_does_not_change_its_start(error: type[BaseException], call: int) -> None:
    start, calls = torch.full((3,), 2.0, dtype=torch.float64), 0

    def objectives(x: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error("stop")
        return {"left": ((x - 1) ** 4).sum() + (x**2).sum(), "right": ((x + 1) ** 2).sum()}

    with pytest.raises(error):
        newton(objectives, start)
    assert start.tolist() == [2.0, 2.0, 2.0]
    calls = 10
    once = newton(objectives, start)
    twice = newton(objectives, start)
    assert torch.equal(once.point, twice.point)
