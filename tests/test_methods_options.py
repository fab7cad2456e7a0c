"""Errors of methods: invalid options, and losses outside the domain."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

import paretorch as pt
from matrices import answer, gaussian
from methods import METHODS, MethodEntry
from paretorch.core.gradients import memory
from paretorch.device_memory import total_memory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pt.CAGrad(c=1.5), "c must be in"),
        (lambda: pt.CAGrad(rescale=3), "rescale"),
        (lambda: pt.MGDA(normalize="L2"), "normalize"),
        (lambda: pt.MGDA(solver="qp"), "solver"),
        (lambda: pt.MGDA(iterations=0), "iterations"),
        (lambda: pt.PCGrad(reduction="avg"), "reduction"),
        (lambda: pt.GradDrop(leak=2.0), "leak"),
        (lambda: pt.DWA(temperature=0.0), "temperature"),
        (lambda: pt.DWA(window=0), "window"),
        (lambda: pt.FAMO(rate=0.0), "rate"),
        (lambda: pt.FAMO(gamma=-1.0), "gamma"),
        (lambda: pt.Uncertainty({"a": "ranking"}), "classification"),
        (lambda: pt.Static({"a": -1.0}), "at least 0"),
        (lambda: pt.Static({}), "by task name"),
        (lambda: pt.Static({"a": 0.0, "b": 0}), "a weight above 0 for one task at least, got {'a': 0.0, 'b': 0}"),
        (lambda: pt.UPGrad(preference=(0.0, 0.0)), "preference"),
        (lambda: pt.Fork(pt.Static({"left": 1.0}), ("left", "right")), "right"),
        (lambda: pt.Fork(pt.Static({"left": 1.0, "rigth": 1.0}), ("left", "right")), "did you mean 'right'"),
        (lambda: pt.Fork(pt.UPGrad(preference=(1.0,)), ("left", "right")), "preference has 1 values for 2"),
        (lambda: pt.RLW("uniform"), "distribution is '"),
        (lambda: pt.SmoothTchebycheff(mu=0.0), "mu must be above 0"),
        (lambda: pt.SmoothTchebycheff(warmup=0), "warmup is a whole number of at least 1"),
        (lambda: pt.SmoothTchebycheff(window=0), "window is a whole number of at least 1"),
        (lambda: pt.IMTLL(rate=0.0), "rate must be above 0"),
        (lambda: pt.IMTL(rate=-1.0), "rate must be above 0"),
        (lambda: pt.GO4Align(groups=0), "groups is a whole number of at least 1"),
        (lambda: pt.GO4Align(eta=0.0), "eta must be above 0"),
        (lambda: pt.GradVac(beta=1.5), r"beta must be in \[0, 1\], got 1\.5"),
        (lambda: pt.FairGrad(alpha=0.0), "alpha must be above 0"),
        (lambda: pt.AlignedMTL(mode="max"), "mode is '"),
        (lambda: pt.ConFIG(length="max"), "length is '"),
        (lambda: pt.GradNorm(alpha=-1.0), "alpha must be at least 0"),
        (lambda: pt.GradNorm(rate=0.0), "rate must be above 0"),
        (lambda: pt.SDMGrad(lam=-0.1), "lam must be at least 0"),
        (lambda: pt.SDMGrad(batches=2), "batches is 1, or 3"),
        (lambda: pt.MoDo(gamma=0.0), "gamma must be above 0"),
        (lambda: pt.MoDo(rho=-1.0), "rho must be at least 0"),
        (lambda: pt.MoCo(beta=0.0), "beta must be in"),
        (lambda: pt.MoCo(gamma=0.0), "gamma must be above 0"),
        (lambda: pt.MoCo(rho=-1.0), "rho must be at least 0"),
        (lambda: pt.DBMTL(beta=1.0), "beta must be in"),
        (lambda: pt.DBMTL(sigma=-1.0), "sigma must be at least 0"),
        (lambda: pt.ExcessMTL(step=0.0), "step must be above 0"),
        (lambda: pt.ConFIGMomentum(beta2=1.0), "beta2 must be in"),
        (lambda: pt.Momentum(pt.Equal()), "Momentum takes a method that uses the gradients"),
        (lambda: pt.Momentum(pt.MGDA(), beta=1.0), "beta must be in"),
        (lambda: pt.LogLosses(pt.DWA()), "ScaleInvariant"),
        (lambda: pt.CRMOGM(pt.GradDrop()), "CRMOGM takes a method that returns weights"),
        (lambda: pt.CRMOGM(pt.MGDA(), alpha=1.0), "alpha must be in"),
        (lambda: pt.Balancer(pt.FAMO()).observe({"a": torch.tensor(1.0)}), "declared are none yet"),
        (lambda: pt.weights(pt.MGDA(), losses=torch.ones(2)), "needs the gramian: give gramian="),
        (lambda: pt.weights(pt.GradNorm(), torch.eye(2)), "needs the losses: give losses="),
        (lambda: pt.weights(pt.MoDo(), torch.eye(2)), "needs more than one Gramian"),
        (lambda: pt.weights(pt.MoCo(), torch.eye(2)), "needs more than one Gramian"),
        (lambda: pt.weights(pt.MGDA(), torch.ones(2, 3)), r"gramian is a tensor of shape \(T, T\), got \(2, 3\)"),
        (lambda: pt.weights(pt.MGDA(), torch.full((2, 2), math.nan)), "gramian is finite"),
        (lambda: pt.weights(pt.MGDA(), torch.eye(2), tasks=("a",)), "tasks names 1 tasks"),
        (lambda: pt.weights(pt.Equal(), torch.eye(2), torch.ones(3)), "of the same tasks"),
    ],
)
def test_option_out_of_range_raises_with_its_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


KINDS = {
    "pt.UPGrad(preference=3)": "a preference has a value for each task",
    "pt.UPGrad(preference='ab')": "a preference has a value for each task",
    "pt.UPGrad(preference=['1', '2'])": "a preference has a number for each task",
    "pt.Static({'a': '1'})": "the weight of 'a' must be at least 0 and finite",
    "pt.Static({'a': True})": "the weight of 'a' must be at least 0 and finite",
    "pt.Static({'a': None})": "the weight of 'a' must be at least 0 and finite",
    "pt.Uncertainty(['a'])": "kinds is a dict",
    "pt.Fork(pt.MGDA(), 2)": "tasks is a sequence of names, got 2",
    "pt.Fork(pt.MGDA(), ('a', 'b'), factor='x')": "factor, which is dTotal/dL_t, must be above 0",
    "pt.Fork(pt.MGDA(), ('a', 'b'), group=0)": "group is a process group",
    "pt.Balancer(pt.MGDA(), shared=3)": "shared is a module or an iterable",
    "pt.weights(pt.MGDA(), [[1, 0], [0, 1]])": "gramian is a tensor of shape (T, T), got list",
}


def test_option_of_wrong_type_raises_with_its_name() -> None:
    """In a separate process, in which beartype does not check types first."""
    lines = [f"try: {call}\nexcept ValueError as error: print(error)" for call in KINDS]
    script = "\n".join(["import paretorch as pt", *lines])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for found, message in zip(done.stdout.splitlines(), KINDS.values(), strict=True):
        assert message in found


NUMBERS = [
    (entry, field.name, value)
    for entry in {type(entry.method): entry for entry in METHODS}.values()
    for field in dataclasses.fields(entry.method)  # type: ignore[arg-type]
    for value in {float: (math.nan, math.inf, -1.0), int: (-1,)}.get(type(getattr(entry.method, field.name)), ())
]
ANY_SIGN = {"minimum"}  # of FAMO: a bound of losses that may be negative


@pytest.mark.parametrize(
    ("entry", "option", "value"),
    NUMBERS,
    ids=lambda part: type(part.method).__name__ if isinstance(part, MethodEntry) else str(part),
)
def test_option_rejects_nan_infinite_and_negative_numbers(entry: MethodEntry, option: str, value: Any) -> None:
    if option in ANY_SIGN and value == -1.0:
        assert dataclasses.replace(entry.method, **{option: value}) != entry.method  # type: ignore[type-var]
        return
    with pytest.raises(ValueError, match=f"{option} (is|must be) .*, got"):
        dataclasses.replace(entry.method, **{option: value})  # type: ignore[type-var]


@pytest.mark.parametrize(
    "method",
    [
        pt.ScaleInvariant(),
        pt.GeometricMean(),
        pt.IMTLL(),
        pt.SmoothTchebycheff(),
        pt.GO4Align(),
        pt.GradNorm(),
        pt.IMTL(),
        pt.DBMTL(),
        pt.LogLosses(pt.MGDA()),
    ],
    ids=repr,
)
def test_loss_outside_domain_raises_with_its_task(method: pt.Method[Any]) -> None:
    with pytest.raises(ValueError, match=r"above 0, got -1\.0 for task '1'"):
        answer(method, gaussian(2, 3, 0), losses=torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_jacobian_too_large_for_memory_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.ones(2, 1000, dtype=torch.float64)
    monkeypatch.setattr(memory, "total_memory", lambda device: 2 * 1000 * 8)
    answer(pt.GradDrop(), rows)
    monkeypatch.setattr(memory, "total_memory", lambda device: 2 * 1000 * 8 - 1)
    with pytest.raises(ValueError, match=r"2 tasks with respect to 1,000 numbers take .* GiB.*paretorch\.Fork"):
        answer(pt.GradDrop(), rows)


@pytest.mark.parametrize("method", [pt.UPGrad(), pt.GradDrop()], ids=repr)
def test_balancer_checks_memory_before_backward(method: pt.Method[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    backwards: list[int] = []
    weight.register_hook(lambda gradient: backwards.append(1))
    losses = {"a": (2 * weight).sum(), "b": weight.square().sum()}
    monkeypatch.setattr(memory, "total_memory", lambda device: 2 * 1000 * 8 - 1)
    with pytest.raises(ValueError, match=r"2 tasks with respect to 1,000 numbers take .* GiB.*shared="):
        pt.Balancer(method, shared=[weight]).backward(losses)
    assert weight.grad is None
    assert not backwards
    monkeypatch.setattr(memory, "total_memory", lambda device: 2 * 1000 * 8)
    pt.Balancer(method, shared=[weight]).backward(losses)
    assert weight.grad is not None


def test_total_memory_is_known_for_cpu() -> None:
    total = total_memory(torch.device("cpu"))
    assert total is None or total > 2**28
    assert total_memory(torch.device("meta")) is None
