"""Methods on random Jacobians with dependent, equal, opposite, zero, long and short rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import paretorch as pt
from matrices import answer, gaussian
from methods import METHODS, MethodEntry
from paretorch.core.contract import Evidence, Need, Status

GENERAL = [entry for entry in METHODS if not isinstance(entry.method, pt.Static)]
GRAMIAN = [entry for entry in GENERAL if Need.GRAMIAN in entry.method.needs and entry.method.batches == 1]
CONFLICT_FREE = [entry for entry in GRAMIAN if entry.conflict_free is True]
LOWER = (torch.float32, torch.bfloat16, torch.float16)


@st.composite
def random_jacobians(draw: st.DrawFn, sizes: tuple[int, ...], zero: bool = True) -> Tensor:
    """(T, n) gradients of a random rank, with some equal, opposite or zero rows, norm ratios up to 1e6, and a scale."""
    tasks = draw(st.sampled_from(sizes))
    rank = draw(st.integers(1, tasks + 2))
    seed = draw(st.integers(0, 10**6))
    rows = gaussian(tasks, rank, seed) @ gaussian(rank, tasks + 3, seed + 1)
    kinds = ["equal", "opposite"] + (["zero"] if zero else [])
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=3)) if tasks > 1 else []:
        one, other = draw(st.permutations(range(tasks)).map(lambda order: order[:2]))
        rows[one] = {"equal": rows[other], "opposite": -rows[other], "zero": 0 * rows[other]}[kind]
    ratio = draw(st.sampled_from((0.0, 1.0, 3.0, 6.0)))
    exponents = torch.rand(tasks, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * ratio
    return rows * 10.0 ** (exponents - ratio + draw(st.sampled_from((-12, -3, 0, 3, 12))))


def check_method(entry: MethodEntry, rows: Tensor) -> None:
    balance, update = answer(entry.method, rows, calibrated=True)
    assert bool(torch.isfinite(update).all())
    assert balance.status in entry.ends, balance.status
    again, repeated = answer(entry.method, rows, calibrated=True)
    assert torch.equal(update, repeated)
    assert again.status is balance.status


twenty_five_examples = settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
@twenty_five_examples
@given(rows=random_jacobians((1, 2, 3, 10)))
@pytest.mark.sampled(2)
def test_method_is_finite_and_deterministic_for_random_jacobians(entry: MethodEntry, rows: Tensor) -> None:
    check_method(entry, rows)


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
@twenty_five_examples
@given(rows=random_jacobians((1, 2, 5)), dtype=st.sampled_from(LOWER))
@pytest.mark.sampled(2)
def test_method_is_finite_for_random_jacobians_in_lower_precision(
    entry: MethodEntry, rows: Tensor, dtype: torch.dtype
) -> None:
    lower = rows.to(dtype)
    if bool(torch.isfinite(lower).all()):
        check_method(entry, lower)


@pytest.mark.long
@pytest.mark.parametrize("entry", GRAMIAN, ids=lambda entry: entry.name)
@settings(deadline=None, derandomize=True, max_examples=12, suppress_health_check=list(HealthCheck), database=None)
@given(rows=random_jacobians((40, 128)))
def test_method_is_finite_for_random_jacobians_of_many_tasks(entry: MethodEntry, rows: Tensor) -> None:
    check_method(entry, rows)


@pytest.mark.parametrize("entry", CONFLICT_FREE, ids=lambda entry: entry.name)
@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
@given(rows=random_jacobians((2, 3, 10), zero=False))
def test_conflict_free_method_has_no_conflict_for_random_jacobians(entry: MethodEntry, rows: Tensor) -> None:
    balance, update = answer(entry.method, rows)
    if balance.status is Status.SOLVED and update.norm() > 0:
        cosines = (rows @ update) / rows.norm(dim=1) / update.norm()
        assert cosines.min() >= -1e-7, cosines.min()


@pytest.mark.parametrize("entry", GENERAL, ids=lambda entry: entry.name)
def test_method_does_not_modify_evidence_or_state(entry: MethodEntry) -> None:
    """Evidence and state are inputs: a method returns new values."""
    method: pt.Method[Any] = entry.method
    rows = gaussian(4, 6, 1)
    gramian, losses = rows @ rows.T, torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    tasks = tuple("0123")
    state: Any = method.init(tasks, torch.zeros((), dtype=torch.float64))
    for _ in range(2):
        given_to = [rows.clone(), gramian.clone(), losses.clone(), *([] if state is None else _tensors(state))]
        kept = [tensor.clone() for tensor in given_to]
        evidence = Evidence(
            tasks=tasks,
            present=torch.ones(4, dtype=torch.bool),
            losses=given_to[2],
            gramian=given_to[1],
            cross=given_to[1] if method.batches > 1 else None,
            jacobian=given_to[0] if Need.JACOBIAN in method.needs else None,
            factor=torch.ones(4, dtype=torch.float64),
            generator=torch.Generator().manual_seed(0),
        )
        _, state = method.calibrated(evidence, state)
        for tensor, before in zip(given_to, kept, strict=True):
            torch.testing.assert_close(tensor, before, rtol=0, atol=0, equal_nan=True)


def _tensors(state: Any) -> list[Tensor]:
    """The tensors of a nested state."""
    return [state] if isinstance(state, Tensor) else [leaf for part in state or () for leaf in _tensors(part)]
