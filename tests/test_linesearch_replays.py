"""Replay of the first forward in trials: module state, random draws, derivatives in losses, rows, compiled modules."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import paretorch as pt
from line_searches import SEARCHES

TASKS = ("a", "b")
F64 = torch.float64


def heads(size: int = 4) -> nn.ModuleDict:
    return nn.ModuleDict({task: nn.Linear(size, 1) for task in TASKS}).double()


def head_losses_of(modules: nn.ModuleDict) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda z: {t: (h(z) - (1 if t == "a" else -2)).square().mean() for t, h in modules.items()}


# --- state in plain attributes ---


@dataclass
class Memory:
    """State in an object."""

    kept: list[Tensor] = field(default_factory=list)
    length: int = 0


class Stateful(nn.Module):
    """A recurrent encoder whose state is a plain attribute, changed as ``kind`` names it."""

    def __init__(self, kind: str, batch: int) -> None:
        super().__init__()
        self.kind, self.mix = kind, nn.Linear(9, 4)
        self.h = torch.zeros(batch, 4, dtype=F64)
        self.memory, self.array = Memory([self.h.clone()]), np.zeros((batch, 4))

    def state(self) -> Tensor:
        if self.kind == "object":
            return self.memory.kept[-1]
        return torch.from_numpy(self.array) if self.kind == "array" else self.h

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.mix(torch.cat([x, self.state().clone()], 1)))
        if self.kind == "assigned":
            self.h = z.detach()
        elif self.kind == "in place":
            self.h.copy_(z.detach())
        elif self.kind == "data":
            self.h.data.copy_(z.detach())
        elif self.kind == "array":
            self.array += z.detach().numpy()
        else:
            self.memory.kept.append(z.detach())
            self.memory.length += 1
        return z


@pytest.mark.parametrize("kind", ["assigned", "in place", "data", "array", "object"])
@pytest.mark.parametrize("name", SEARCHES)
def test_step_advances_plain_attributes_once(name: str, kind: str) -> None:
    torch.manual_seed(0)
    encoder, own = Stateful(kind, 40).double(), heads()
    search = SEARCHES[name](encoder, own, pt.MGDA())
    for number in range(3):
        x, twin = torch.randn(40, 5, dtype=F64), copy.deepcopy(encoder)
        twin(x)
        assert search.step(x, head_losses_of(own)).accepted
        assert torch.allclose(encoder.state(), twin.state(), rtol=1e-14, atol=0)
        assert encoder.memory.length == (number + 1 if kind == "object" else 0)


class Drawing(nn.Module):
    """Drops features by a mask of a generator other than torch's."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.mix = source, nn.Linear(5, 4)
        self.generator = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        shape = (len(x), 4)
        if self.source == "numpy":
            mask = np.random.random(shape) > 0.4  # noqa: NPY002 - what is tested
        elif self.source == "random":
            mask = np.array([random.random() > 0.4 for _ in range(4 * len(x))]).reshape(shape)
        else:
            mask = self.generator.random(shape) > 0.4
        z: Tensor = self.mix(x) * torch.from_numpy(mask)
        return z


@pytest.mark.parametrize("source", ["numpy", "random", "attribute"])
@pytest.mark.parametrize("name", SEARCHES)
def test_trials_repeat_masks_of_other_generators(name: str, source: str) -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what is tested
    encoder, own, x = Drawing(source).double(), heads(), torch.randn(40, 5, dtype=F64)
    twin, draws = copy.deepcopy(encoder), np.random.get_state()  # noqa: NPY002
    values: list[float] = []

    def recorded(z: Tensor) -> dict[str, Tensor]:
        found = head_losses_of(own)(z)
        values.append(float(found["a"].detach()))
        return found

    SEARCHES[name](encoder, own, pt.MGDA(), max_step=1e-9).step(x, recorded)
    assert values[1:] == pytest.approx([values[0]] * (len(values) - 1), rel=1e-6)
    # Python's generator is omitted: the type checks during tests draw from it
    after = np.random.random(), encoder.generator.random()  # noqa: NPY002
    np.random.set_state(draws)  # noqa: NPY002
    twin(x)
    assert after == (np.random.random(), twin.generator.random())  # noqa: NPY002


def test_trials_keep_counters_of_calls() -> None:
    class Counting(nn.Linear):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in nn.Linear
            self.calls += 1
            return super().forward(input)

    encoder, own = Counting(5, 4).double(), heads()
    step = pt.Backtracking(encoder, own, pt.MGDA()).step(torch.randn(8, 5, dtype=F64), head_losses_of(own))
    assert encoder.calls > 1 + step.trials  # the trials, and those that found the bound


# --- rows that are not samples ---


class Tokens(nn.Module):
    """Recurrent features of sequences, in one of several layouts."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.rnn = nn.GRU(5, 4, batch_first=layout != "time first, last state")

    def forward(self, x: Any) -> Tensor:
        if self.layout == "packed output":
            x = pack_padded_sequence(x, torch.full((len(x),), 9), batch_first=True)
        out = self.rnn(x)[0]
        if self.layout in ("packed input", "packed output"):
            packed: Tensor = out.data
            return packed
        z: Tensor = out[-1] if self.layout == "time first, last state" else out.flatten(0, 1)
        return z


def sequences(layout: str, batch: int) -> Any:
    if layout == "time first, last state":
        return torch.randn(20, batch, 5, dtype=F64)
    x = torch.randn(batch, 9, 5, dtype=F64)
    if layout != "packed input":
        return x
    return pack_padded_sequence(x, torch.arange(batch) % 9 + 1, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("layout", ["flattened", "packed input", "packed output", "time first, last state"])
@pytest.mark.parametrize("batch", [8, 20, 40])
@pytest.mark.parametrize("name", ["linearised", "difference", "calibrated"])
def test_rows_that_are_not_samples_use_the_whole_batch(name: str, batch: int, layout: str) -> None:
    torch.manual_seed(0)
    encoder, own, x = Tokens(layout).double(), heads(), sequences(layout, batch)
    search = SEARCHES[name](encoder, own, pt.MGDA(), verify=1)
    for _ in range(5):
        step = search.step(x, head_losses_of(own))
        assert step.accepted
        assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


def test_graph_edges_use_the_whole_batch() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(5, 4)

        def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
            nodes, edges = given
            z: Tensor = self.mix(nodes)
            return torch.tanh(z + torch.zeros_like(z).index_add(0, edges[1], z[edges[0]]))

    torch.manual_seed(0)
    encoder, own = Graph().double(), heads()
    given = torch.randn(60, 5, dtype=F64), torch.randint(60, (2, 200))
    search = pt.FastBacktracking(encoder, own, pt.MGDA(), verify=1)
    step = search.step(given, head_losses_of(own))
    assert step.accepted
    assert not search.fast.encoder.divisible
    assert all(step.actual[task] < float(loss) for task, loss in step.losses.items())


# --- derivatives inside losses ---


def equation(out: nn.Module, q: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
    """u' = 1 and u(0) = 0."""

    def of(z: Tensor) -> dict[str, Tensor]:
        (slope,) = torch.autograd.grad(out(z).sum(), q, create_graph=True)
        return {"equation": (slope - 1).square().mean(), "boundary": out(z)[:2].square().mean()}

    return of


def test_backtracking_accepts_losses_with_input_derivatives() -> None:
    torch.manual_seed(0)
    q = torch.rand(32, 1, dtype=F64, requires_grad=True)
    encoder, out = nn.Sequential(nn.Linear(1, 16), nn.Tanh()).double(), nn.Linear(16, 1).double()
    of = equation(out, q)
    search = pt.Backtracking(encoder, out, pt.MGDA())
    first = {task: float(loss.detach()) for task, loss in of(encoder(q)).items()}
    for _ in range(10):
        before = {task: float(loss.detach()) for task, loss in of(encoder(q)).items()}
        step = search.step(q, of)
        after = {task: float(loss.detach()) for task, loss in of(encoder(q)).items()}
        assert step.accepted
        assert step.predicted == pytest.approx(after, rel=1e-12)
        assert all(after[task] <= before[task] - 0.1 * step.step * step.slopes[task] for task in before)
    assert all(after[task] < 0.99 * first[task] for task in first)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "classical"])
@pytest.mark.parametrize("silent", [False, True])
def test_fast_search_refuses_losses_with_input_derivatives(name: str, silent: bool) -> None:
    """Also where torch would return a derivative of zero."""
    q = torch.rand(32, 1, dtype=F64, requires_grad=True)
    encoder, out = nn.Sequential(nn.Linear(1, 16), nn.Tanh()).double(), nn.Linear(16, 1).double()

    def of(z: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(out(z).sum(), q, create_graph=True, materialize_grads=silent)[0]
        return {
            "equation": (found - 1).square().mean() + out(z).square().mean(),
            "boundary": out(z)[:2].square().mean(),
        }

    before = copy.deepcopy(encoder.state_dict())
    with pytest.raises(ValueError, match=r"derivative by the encoder's input.*use Backtracking.*or a Balancer"):
        SEARCHES[name](encoder, out, pt.MGDA()).step(q, of)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", SEARCHES)
def test_losses_with_feature_derivatives_are_searched(name: str) -> None:
    torch.manual_seed(0)
    encoder, own = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double(), nn.Linear(4, 1).double()

    def of(z: Tensor) -> dict[str, Tensor]:
        (slope,) = torch.autograd.grad(own(z).square().sum(), z, create_graph=True)
        return {"penalty": (slope.norm(dim=1) - 1).square().mean(), "fit": (own(z) - 1).square().mean()}

    x = torch.randn(40, 5, dtype=F64)
    search = SEARCHES[name](encoder, own, pt.MGDA(), verify=1)
    for _ in range(5):
        step = search.step(x, of)
        assert step.accepted
        assert all(step.predicted[task] < float(loss) for task, loss in step.losses.items())


# --- compiled modules ---


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # torch's own, while it compiles
@pytest.mark.parametrize("part", ["encoder", "heads"])
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.sampled(3)
def test_compiled_module_takes_the_same_steps_at_another_batch_size(name: str, part: str) -> None:
    """The backward of the second size overwrites what the forward saved, so that its graph serves once."""
    taken = []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        encoder: Any = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh()).double()
        own: Any = {task: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).double() for task in TASKS}
        modules = [encoder, *own.values()]
        if compiled and part == "encoder":
            encoder = torch.compile(encoder, backend="aot_eager")
        elif compiled:
            own = {task: torch.compile(head, backend="aot_eager") for task, head in own.items()}
        search = SEARCHES[name](encoder, own, pt.Equal(), **({} if name == "classical" else {"samples": None}))
        for size in (32, 24, 17):
            x = torch.randn(size, 5, dtype=F64, generator=torch.Generator().manual_seed(size))
            assert search.step(x, head_losses_of(own)).accepted
        taken.append(torch.cat([leaf.detach().flatten() for each in modules for leaf in each.parameters()]))
    assert torch.allclose(taken[0], taken[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize("name", SEARCHES)
def test_generator_stands_after_one_forward_however_the_step_ends(name: str, scale: float) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 4))
    made = nn.ModuleDict({task: nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 1)) for task in TASKS})
    x = torch.randn(32, 8)

    def losses_of(z: Tensor) -> dict[str, Tensor]:
        return {task: scale * made[task](z).square().mean() for task in TASKS}

    before = torch.get_rng_state()
    losses_of(encoder(x))
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    SEARCHES[name](encoder, made, pt.MGDA()).step(x, losses_of)
    assert torch.equal(torch.get_rng_state(), after)
