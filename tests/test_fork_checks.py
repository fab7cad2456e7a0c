"""Warnings and errors of a Fork whose use would make it a plain sum."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from paretorch.core.contract import Method

F64 = torch.float64


class Parts(NamedTuple):
    encoder: nn.Linear
    heads: nn.ModuleDict
    fork: pt.Fork
    x: Tensor

    def loss(self, task: str, features: Tensor) -> Tensor:
        made: Tensor = (self.heads[task](features) - ord(task) + 96).square().mean()
        return made

    def gradients(self) -> Tensor:
        parameters = [*self.encoder.parameters(), *self.heads.parameters()]
        return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def make_parts(method: Method[Any] | None = None, tasks: str = "ab", rows: int = 8, **options: Any) -> Parts:
    torch.manual_seed(0)
    encoder = nn.Linear(5, 6, dtype=F64)
    heads = nn.ModuleDict({task: nn.Linear(6, 1, dtype=F64) for task in tasks})
    return Parts(encoder, heads, pt.Fork(method or pt.MGDA(), tuple(tasks), **options), torch.randn(rows, 5, dtype=F64))


def warnings_of(body: Callable[[], object]) -> list[str]:
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        body()
    return [str(warning.message) for warning in found]


def times(count: int, body: Callable[[], object]) -> Callable[[], None]:
    """A call many times."""

    def repeated() -> None:
        for _ in range(count):
            body()

    return repeated


# --- several forwards before one backward ------------------------------------------------------------------------------------

GRADIENTS: list[Method[Any]] = [
    pt.MGDA(),
    pt.IMTLG(),
    pt.CAGrad(),
    pt.NashMTL(),
    pt.GradDrop(),
    pt.MGDA(normalize="loss"),
]


@pytest.mark.parametrize("method", GRADIENTS, ids=repr)
@pytest.mark.parametrize("whole", [False, True], ids=["one task each", "all tasks each"])
def test_fork_refuses_several_calls_in_one_backward_with_the_cure(method: Method[Any], whole: bool) -> None:
    parts = make_parts(method)
    losses: dict[str, list[Tensor]] = {"a": [], "b": []}
    for seed, task in enumerate("ab"):
        branch = parts.fork(parts.encoder(torch.randn(8, 5, dtype=F64, generator=torch.Generator().manual_seed(seed))))
        for own in "ab" if whole else task:
            losses[own].append(parts.loss(own, branch[own]))
    sums = {task: torch.stack(found).sum() for task, found in losses.items()}
    recorded = parts.fork.losses(sums) if parts.fork.needs_losses else sums
    with pytest.raises(RuntimeError, match=r"several calls of this Fork.*fork\(\(z1, z2\)\).*paretorch\.Balancer"):
        (recorded["a"] + recorded["b"]).backward()


def test_fork_refuses_several_calls_within_reentrant_checkpoints() -> None:
    parts = make_parts()
    x = parts.x.requires_grad_()

    def run(task: str) -> Tensor:
        made: Tensor = checkpoint(lambda x: parts.loss(task, parts.fork(parts.encoder(x))[task]), x, use_reentrant=True)
        return made

    with pytest.raises(RuntimeError, match="several calls of this Fork"):
        (run("a") + run("b")).backward()


@pytest.mark.parametrize("records_losses", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_fork_is_unchanged_by_a_forward_without_backward(which: int, records_losses: bool) -> None:
    parts, alone = make_parts(), make_parts()
    branches = [parts.fork(parts.encoder(parts.x + shift)) for shift in range(2)]
    losses = {task: parts.loss(task, branches[which][task]) for task in "ab"}
    assert warnings_of(lambda: sum((parts.fork.losses(losses) if records_losses else losses).values()).backward()) == []  # type: ignore[union-attr]
    branch = alone.fork(alone.encoder(alone.x + which))
    (alone.loss("a", branch["a"]) + alone.loss("b", branch["b"])).backward()
    torch.testing.assert_close(parts.gradients(), alone.gradients(), rtol=1e-12, atol=1e-14)
    assert parts.fork.balance is not None
    assert bool(parts.fork.balance.present.all())  # type: ignore[union-attr]


def test_fork_counts_two_forwards_with_a_backward_each_as_two_steps() -> None:
    parts, steps = make_parts(), make_parts()
    branches = [parts.fork(parts.encoder(parts.x + shift)) for shift in range(2)]
    for branch in branches:
        (parts.loss("a", branch["a"]) + parts.loss("b", branch["b"])).backward()
    for shift in range(2):
        branch = steps.fork(steps.encoder(steps.x + shift))
        (steps.loss("a", branch["a"]) + steps.loss("b", branch["b"])).backward()
    torch.testing.assert_close(parts.gradients(), steps.gradients(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [pt.FAMO(), pt.GeometricMean(), pt.DWA()], ids=repr)
def test_fork_with_loss_methods_weights_the_losses_of_several_forwards_together(method: Method[Any]) -> None:
    parts = make_parts(method)
    losses = {task: parts.loss(task, parts.fork(parts.encoder(parts.x + 1))[task]) for task in "ab"}
    sum(parts.fork.losses(losses).values()).backward()  # type: ignore[union-attr]
    assert parts.fork.balance is not None
    weights = parts.fork.balance.weights
    assert weights is not None
    plain = make_parts()
    sum(
        weight * plain.loss(task, plain.encoder(plain.x + 1)) for task, weight in zip("ab", weights, strict=True)
    ).backward()
    torch.testing.assert_close(parts.gradients(), plain.gradients(), rtol=1e-12, atol=1e-14)
    recorded = [parts.fork.losses({t: parts.loss(t, parts.fork(parts.encoder(parts.x))[t])})[t] for t in "ab"]
    with pytest.raises(RuntimeError, match="several times for one backward"):
        (recorded[0] + recorded[1]).backward()


def test_fork_warns_of_one_task_in_each_backward() -> None:
    parts = make_parts()

    def accumulate() -> None:
        for task in "ab":
            parts.loss(task, parts.fork(parts.encoder(parts.x))[task]).backward()

    (sentence,) = warnings_of(accumulate)
    assert "'a', then 'b'" in sentence
    assert "paretorch.Balancer" in sentence
    assert warnings_of(accumulate) == []


# --- heads that read something else ------------------------------------------------------------------------------------------


def step_with_heads(parts: Parts, read: Callable[[str, Tensor, dict[str, Any]], Tensor], records_losses: bool) -> None:
    z = parts.encoder(parts.x)
    branch = parts.fork(z)
    losses = {task: parts.loss(task, read(task, z, branch)) for task in parts.heads}
    sum((parts.fork.losses(losses) if records_losses else losses).values()).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("records_losses", [False, True])
@pytest.mark.parametrize("tasks", ["ab", "abcd"])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.UPGrad(), pt.GradDrop()], ids=repr)
def test_fork_warns_once_of_a_head_that_reads_the_features(
    method: Method[Any], tasks: str, records_losses: bool
) -> None:
    parts = make_parts(method, tasks)
    run = lambda: step_with_heads(parts, lambda task, z, branch: z if task == "b" else branch[task], records_losses)  # noqa: E731
    (sentence,) = warnings_of(run)
    assert "'b'" in sentence
    assert not any(repr(task) in sentence for task in tasks if task != "b")
    assert warnings_of(run) == []


READS: dict[str, Callable[[str, Tensor, dict[str, Any]], Tensor]] = {
    "features": lambda task, z, branch: z,
    "detached branches": lambda task, z, branch: branch[task].detach(),
}


@pytest.mark.parametrize(("kind", "within"), [("features", 6), ("detached branches", 60)])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.GradDrop(), pt.Equal(), pt.FAMO()], ids=repr)
def test_fork_without_a_head_on_a_branch_warns_once(method: Method[Any], kind: str, within: int) -> None:
    """Also a method of losses whose losses are not recorded: the error for that is raised in the Fork's backward."""
    parts = make_parts(method)
    found = warnings_of(times(within, lambda: step_with_heads(parts, READS[kind], records_losses=False)))
    assert len(found) == 1
    assert "fork(features)[task]" in found[0]
    assert parts.fork.balance is None
    assert warnings_of(times(within, lambda: step_with_heads(parts, READS[kind], records_losses=False))) == []


@pytest.mark.parametrize("kind", READS)
def test_fork_without_a_head_on_a_branch_warns_at_once_if_losses_are_recorded(kind: str) -> None:
    parts = make_parts()
    assert len(warnings_of(lambda: step_with_heads(parts, READS[kind], records_losses=True))) == 1


@pytest.mark.parametrize("kind", ["dropout", "no gradients", "paused", "accumulation"])
def test_fork_does_not_warn_of_forwards_that_train_nothing(kind: str) -> None:
    """Monte Carlo dropout, forwards without gradients or within a pause, and many forwards before the first backward."""
    parts = make_parts()

    def forward() -> Tensor:
        return torch.stack([parts.loss(task, z) for task, z in parts.fork(parts.encoder(parts.x)).items()])

    def run() -> None:
        if kind == "accumulation":
            for loss in [forward().sum() for _ in range(90)]:
                loss.backward()
        elif kind == "paused":
            forward().sum().backward()
        else:
            forward()

    contexts: dict[str, contextlib.AbstractContextManager[None]] = {
        "no gradients": torch.no_grad(),
        "paused": parts.fork.paused(),
    }
    with contexts.get(kind, contextlib.nullcontext()):
        assert warnings_of(times(1 if kind == "accumulation" else 90, run)) == []


@pytest.mark.parametrize("before", [True, False])
def test_fork_does_not_warn_of_a_penalty_on_the_features_with_a_backward_of_its_own(before: bool) -> None:
    parts = make_parts()

    def run() -> None:
        z = parts.encoder(parts.x)
        branch = parts.fork(z)
        penalty, losses = z.square().mean(), torch.stack([parts.loss(task, branch[task]) for task in "ab"])
        for each in (penalty, losses.sum()) if before else (losses.sum(), penalty):
            each.backward(retain_graph=True)

    assert warnings_of(times(12, run)) == []
    assert parts.fork.balance is not None


@pytest.mark.parametrize("heads", ["own", "weighted"])
def test_fork_warns_at_once_of_a_head_that_reads_another_branch_if_losses_are_recorded(heads: str) -> None:
    parts = make_parts(heads=heads)
    (sentence,) = warnings_of(lambda: step_with_heads(parts, lambda task, z, branch: branch["a"], records_losses=True))
    assert "'b'" in sentence
    assert "'a'" not in sentence


def test_fork_warns_after_five_steps_of_a_head_that_reads_another_branch() -> None:
    parts = make_parts()
    found = warnings_of(
        times(12, lambda: step_with_heads(parts, lambda task, z, branch: branch["a"], records_losses=False))
    )
    assert len(found) == 1
    assert "'b'" in found[0]


def test_fork_warns_of_swapped_branches() -> None:
    parts = make_parts()
    (sentence,) = warnings_of(
        lambda: step_with_heads(parts, lambda task, z, branch: branch["b" if task == "a" else "a"], records_losses=True)
    )
    assert "'a', 'b'" in sentence


@pytest.mark.parametrize("records_losses", [False, True])
@pytest.mark.parametrize("copies", [False, True])
def test_fork_does_not_warn_of_heads_that_read_their_branch(records_losses: bool, copies: bool) -> None:
    parts = make_parts(tasks="abc", copies=copies)
    assert (
        warnings_of(times(12, lambda: step_with_heads(parts, lambda task, z, branch: branch[task], records_losses)))
        == []
    )


def test_fork_compares_features_that_are_a_parameter_within_their_own_step() -> None:
    """A hook on a leaf outlives the step; a task that is absent from the first steps is no bypass."""
    fork, z = pt.Fork(pt.MGDA(), ("a", "b", "c")), nn.Parameter(torch.ones(3, 2))

    def run() -> None:
        branch = fork(z)
        ((branch["a"] - 1).square().sum() + branch["b"].exp().sum()).backward()

    assert warnings_of(times(4, run)) == []


def test_fork_does_not_warn_of_batched_heads_and_losses_that_bypass_it() -> None:
    parts = make_parts()
    weight = torch.randn(2, 6, 1, dtype=F64, requires_grad=True)

    def run() -> None:
        z = parts.encoder(parts.x)
        branch = parts.fork(z)
        outputs = torch.bmm(torch.stack([branch["a"], branch["b"]]), weight)
        losses = parts.fork.losses({"a": outputs[0].square().mean(), "b": (outputs[1] - 1).square().mean()})
        (losses["a"] + losses["b"] + z.square().mean()).backward()

    assert warnings_of(times(12, run)) == []


class Wide(nn.Module):
    """An encoder in two parts, and what the heads read of it.

    Args:
        read: by task, from the branches, the first part's activation, the features and the outputs of earlier tasks.
        is_lookup: whether the first part selects rows of a table.
    """

    def __init__(self, read: Callable[..., Tensor], is_lookup: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.table = nn.Linear(5, 6), nn.Linear(6, 6), nn.Embedding(9, 6)
        self.heads = nn.ModuleDict({task: nn.LazyLinear(1) for task in "ab"})
        self.mixing, self.fork = nn.Parameter(torch.zeros(6)), pt.Fork(pt.MGDA(), tasks=("a", "b"))
        self.read, self.is_lookup = read, is_lookup

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        h = self.table(x[:, 0].abs().long()) if self.is_lookup else torch.tanh(self.first(x))
        gate = self.mixing.softmax(0)  # of weights alone
        z, outputs = self.second(h * gate), dict[str, Tensor]()
        branch = self.fork((h, z))
        for task in "ab":
            parts = {
                "own": branch[task][1],
                "branch": branch,
                "h": h,
                "z": z,
                "gate": gate,
                "outputs": outputs,
                "model": self,
            }
            outputs[task] = self.heads[task](self.read(task, parts))
        return {task: (output - 1).square().mean() for task, output in outputs.items()}


def beside(part: Callable[[dict[str, Any]], Tensor]) -> Callable[..., Tensor]:
    """The own branch of each task, with a further part for task b."""
    return lambda task, parts: parts["own"] if task == "a" else torch.cat([parts["own"], part(parts)], dim=1)


BESIDE = {
    "another branch": ("the branch of 'a':", beside(lambda parts: parts["branch"]["a"][1])),
    "another branch's other features": ("the branch of 'a':", beside(lambda parts: parts["branch"]["a"][0])),
    "an output": ("the branch of 'a':", beside(lambda parts: parts["outputs"]["a"])),
    "features": ("the encoder around the Fork:", beside(lambda parts: parts["z"])),
    "an earlier activation": ("the encoder around the Fork:", beside(lambda parts: parts["h"])),
    "both": (
        "the branch of 'a' and the encoder around the Fork:",
        beside(lambda parts: parts["branch"]["a"][1] * parts["h"]),
    ),
}


@pytest.mark.parametrize("is_lookup", [False, True])
@pytest.mark.parametrize("kind", BESIDE)
def test_fork_warns_at_once_of_a_head_that_reads_more_than_its_branch(kind: str, is_lookup: bool) -> None:
    words, read = BESIDE[kind]
    torch.manual_seed(0)
    model, x = Wide(read, is_lookup), torch.randn(16, 5) * 3
    run = lambda: sum(model.fork.losses(model.losses(x)).values()).backward()  # type: ignore[union-attr]  # noqa: E731
    (sentence,) = warnings_of(run)
    assert "the loss of 'b' depends on its own branch and on " + words in sentence
    assert warnings_of(times(5, run)) == []


NOTHING_BESIDE = {
    "both features of the branch": beside(lambda parts: parts["branch"]["b"][0]),
    "a detached output": beside(lambda parts: parts["outputs"]["a"].detach()),
    "detached features": beside(lambda parts: parts["z"].detach() * parts["h"].detach()),
    "what is computed of weights alone": beside(lambda parts: parts["own"] * parts["gate"]),
    "weights of the encoder": beside(lambda parts: parts["own"] @ parts["model"].second.weight),
}


@pytest.mark.parametrize("kind", NOTHING_BESIDE)
def test_fork_does_not_warn_of_heads_that_read_what_is_not_balanced(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Wide(NOTHING_BESIDE[kind]), torch.randn(16, 5)
    assert warnings_of(times(5, lambda: sum(model.fork.losses(model.losses(x)).values()).backward())) == []  # type: ignore[union-attr]


OF_WEIGHTS: dict[str, Callable[[nn.Linear], Tensor]] = {  # with a constant
    "scale": lambda layer: 0.1 * layer.bias.sum() + 1,
    "temperature": lambda layer: nn.functional.softplus(layer.bias) + 1e-3,
    "masked": lambda layer: (layer.weight * torch.ones(6, 6).tril()).sum(0),
    "orthogonal": lambda layer: torch.linalg.qr(layer.weight + torch.eye(6)).Q.sum(1),
}


@pytest.mark.parametrize("kind", OF_WEIGHTS)
def test_fork_does_not_warn_of_a_function_of_weights_that_encoder_and_head_share(kind: str) -> None:
    torch.manual_seed(0)
    encoder, common, heads = nn.Linear(5, 6), nn.Linear(6, 6), nn.ModuleDict({task: nn.Linear(6, 1) for task in "ab"})
    fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))

    def run() -> None:
        factor = OF_WEIGHTS[kind](common)
        branch = fork(encoder(torch.randn(9, 5)) * factor)
        losses = fork.losses({task: head(branch[task] / factor).square().mean() for task, head in heads.items()})
        sum(losses.values()).backward()  # type: ignore[union-attr]

    assert warnings_of(times(4, run)) == []


class OnceBackward(torch.autograd.Function):
    """Its backward works in place on what it saved, as some fused losses do: a second one would be wrong."""

    calls = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.saved = 2 * x.detach()
        return x.square()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        OnceBackward.calls += 1
        return ctx.saved.mul_(cotangents[0])  # type: ignore[no-any-return]


def test_fork_runs_no_backward_to_check_the_wiring() -> None:
    """Also where heads that are computed in one product are connected with both branches, and where a head reads more."""

    def gradients(records: bool) -> Tensor:
        torch.manual_seed(0)
        OnceBackward.calls = 0
        encoder, head, inner = nn.Linear(4, 4), nn.Linear(4, 4), pt.Fork(pt.GradVac(), tasks=("u", "v"))
        fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))
        for _ in range(3):
            branch = fork(encoder(torch.randn(5, 4)))
            joint = OnceBackward.apply(head(torch.cat([branch["a"], branch["b"]])))
            part = inner(joint[:5])
            losses = {"a": part["u"].square().mean() + (part["v"] - 1).square().mean(), "b": joint[5:].mean()}
            sum((fork.losses(losses) if records else losses).values()).backward()  # type: ignore[union-attr]
        assert OnceBackward.calls == 3
        assert int(inner.state_dict()["steps"]) == 3
        return torch.cat([p.grad.flatten() for p in (*encoder.parameters(), *head.parameters()) if p.grad is not None])

    assert torch.equal(gradients(records=True), gradients(records=False))


def test_fork_warns_of_a_task_that_comes_later_and_of_heads_that_read_each_other() -> None:
    torch.manual_seed(0)
    model, x = Wide(beside(lambda parts: parts["z"])), torch.randn(16, 5)
    alone = lambda: sum(model.fork.losses({"a": model.losses(x)["a"]}).values()).backward()  # type: ignore[union-attr]  # noqa: E731
    assert warnings_of(times(4, alone)) == []
    (sentence,) = warnings_of(lambda: sum(model.fork.losses(model.losses(x)).values()).backward())  # type: ignore[union-attr]
    assert "the loss of 'b'" in sentence
    both = Wide(lambda task, parts: torch.cat([parts["branch"]["a"][1], parts["branch"]["b"][1]], dim=1))
    found = warnings_of(times(4, lambda: sum(both.fork.losses(both.losses(x)).values()).backward()))  # type: ignore[union-attr]
    assert len(found) == 1
    assert "depends on its own branch and on the branch of" in found[0]


@pytest.mark.parametrize("absent", ["left out", "masked", "not finite"])
def test_fork_does_not_warn_of_an_absent_task(absent: str) -> None:
    parts = make_parts(tasks="abc", nonfinite="skip" if absent == "not finite" else "pass")

    def run() -> None:
        branch = parts.fork(parts.encoder(parts.x))
        losses: dict[str, Tensor | None] = {task: parts.loss(task, branch[task]) for task in "abc"}
        factor = {"left out": 1.0, "masked": 0.0, "not finite": torch.nan}[absent]
        losses["b"] = None if absent == "left out" else parts.loss("b", branch["b"]) * factor
        sum(parts.fork.losses(losses).values()).backward()  # type: ignore[union-attr]

    assert warnings_of(times(12, run)) == []


# --- eval mode ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_fork_warns_once_of_a_backward_through_branches_of_eval_mode(copies: bool, nested: bool) -> None:
    parts, plain = make_parts(copies=copies), make_parts()
    parts.fork.eval()

    def run() -> None:
        z = parts.encoder(parts.x)
        branch = parts.fork({"z": z} if nested else z)
        own = {task: features["z"] if nested else features for task, features in branch.items()}
        (parts.loss("a", own["a"]) + parts.loss("b", own["b"])).backward()

    (sentence,) = warnings_of(run)
    assert "fork.train()" in sentence
    z = plain.encoder(plain.x)
    (plain.loss("a", z) + plain.loss("b", z)).backward()
    torch.testing.assert_close(parts.gradients(), plain.gradients(), rtol=1e-13, atol=1e-15)
    assert warnings_of(run) == []


def test_fork_does_not_warn_of_inference_in_eval_mode_with_grad_enabled() -> None:
    parts = make_parts()
    parts.fork.eval()
    z = parts.encoder(parts.x)
    assert warnings_of(lambda: parts.heads["a"](parts.fork(z)["a"])) == []
    assert warnings_of(lambda: z.sum().backward()) == []


def test_fork_paused_in_eval_mode_does_not_warn() -> None:
    parts = make_parts()
    parts.fork.eval()

    def saliency() -> None:
        with parts.fork.paused():
            parts.loss("a", parts.fork(parts.encoder(parts.x))["a"]).backward()

    assert warnings_of(saliency) == []


def test_fork_in_training_mode_balances_in_every_mode_of_the_model() -> None:
    parts, plain = make_parts(), make_parts()
    model = nn.ModuleList([parts.encoder, parts.heads, parts.fork]).eval()
    parts.fork.train()
    assert not model.training
    assert warnings_of(lambda: step_with_heads(parts, lambda task, z, branch: branch[task], records_losses=False)) == []
    step_with_heads(plain, lambda task, z, branch: branch[task], records_losses=False)
    assert torch.equal(parts.gradients(), plain.gradients())


# --- gradients that never meet -----------------------------------------------------------------------------------------------

POSITIONS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "columns": ((8, 6), lambda z: z[:, :-1], lambda z: z[:, -1]),
    "tokens": ((4, 7, 6), lambda z: z[:, :-1], lambda z: z[:, -1]),
    "channels": ((4, 6, 3, 3), lambda z: z[:, :2], lambda z: z[:, 2:]),
    "pixels": ((4, 2, 3, 3), lambda z: z[..., 0], lambda z: z[..., 1:]),
    "one sample": ((1, 5, 6), lambda z: z[:, :2], lambda z: z[:, 2:]),
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_fork_warns_once_of_tasks_on_different_positions(kind: str) -> None:
    shape, left, right = POSITIONS[kind]
    fork = pt.Fork(pt.MGDA(), ("a", "b"))

    def run() -> None:
        branch = fork(torch.randn(shape, requires_grad=True) * 1)
        (left(branch["a"]).square().mean() + right(branch["b"]).exp().mean()).backward()

    (sentence,) = warnings_of(run)
    assert "'a' and 'b'" in sentence
    assert "positions, channels" in sentence
    assert "samples of its own" not in sentence
    assert "paretorch.Balancer" in sentence
    assert warnings_of(run) == []


def test_fork_does_not_report_tasks_on_different_levels_as_different_samples() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    branch = fork([torch.randn(4, 3, requires_grad=True) * 1, torch.randn(4, 5, requires_grad=True) * 1])
    (sentence,) = warnings_of(lambda: (branch["a"][0].square().mean() + branch["b"][1].square().mean()).backward())
    assert "levels" in sentence
    assert "samples of its own" not in sentence


def test_fork_names_one_of_three_tasks_on_different_positions() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b", "c"))
    branch = fork(torch.randn(8, 6, requires_grad=True) * 1)
    losses = [branch["a"][:, :4].square().mean(), branch["b"].exp().mean(), branch["c"][:, 4:].square().mean()]
    (sentence,) = warnings_of(lambda: sum(losses).backward())
    assert "'a' and 'c'" in sentence


def test_fork_warns_of_tasks_on_different_samples_also_after_an_overflow() -> None:
    parts = make_parts()

    def run(factor: float) -> None:
        branch = parts.fork(parts.encoder(parts.x))
        (parts.loss("a", branch["a"][:6]) * factor + parts.loss("b", branch["b"][6:])).backward()

    factors = iter((torch.inf, 1.0))
    found = warnings_of(times(2, lambda: run(next(factors))))
    assert len(found) == 1
    assert "samples of its own" in found[0]


def test_fork_does_not_warn_of_gradients_that_are_orthogonal_by_their_values() -> None:
    fork = pt.Fork(pt.MGDA(), ("a", "b"))
    branch = fork(torch.ones(4, 2, requires_grad=True) * 1)
    rows = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    assert warnings_of(lambda: ((branch["a"] * rows[0]).sum() + (branch["b"] * rows[1]).sum()).backward()) == []


# --- features in objects -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plain:
    t: Tensor
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Frozen:
    t: Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    t: Tensor


class Pair(NamedTuple):
    t: Tensor
    other: object = None


class Deep:
    def __init__(self, t: Tensor) -> None:
        self.inner = {"x": [types.SimpleNamespace(y=t)]}
        self.config = {"name": "deep"}

    @property
    def t(self) -> Tensor:
        found: Tensor = self.inner["x"][0].y
        return found


class Guarded:
    """As field classes with validation are: no assignment after it was made."""

    __slots__ = ("t",)
    t: Tensor

    def __init__(self, t: Tensor) -> None:
        object.__setattr__(self, "t", t)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __copy__(self) -> Guarded:
        return Guarded(self.t)


OBJECTS: list[Callable[[Tensor], Any]] = [
    Plain, Frozen, Slotted, Pair, Deep, Guarded, lambda t: types.SimpleNamespace(t=t), lambda t: Pair(t, Plain(t)),
]  # fmt: skip


@pytest.mark.parametrize("wrap", OBJECTS, ids=lambda wrap: getattr(wrap, "__name__", "made"))
@pytest.mark.parametrize("alone", [False, True])
def test_fork_balances_features_in_the_fields_of_objects_like_tensors(
    wrap: Callable[[Tensor], Any], alone: bool
) -> None:
    found = []
    for how in (wrap, lambda t: types.SimpleNamespace(t=t)):
        torch.manual_seed(0)
        encoders = [nn.Linear(5, 6, dtype=F64) for _ in range(2)]
        x = torch.randn(8, 5, dtype=F64)
        levels = [encoder(x) for encoder in encoders]
        fork = pt.Fork(pt.MGDA(), ("a", "b"))
        given: Any = how(levels[1]) if alone else [levels[0], how(levels[1])]
        branch: dict[str, Any] = fork(given if how is wrap else (levels[1] if alone else tuple(levels)))
        parts = {task: [part] if alone else list(part) for task, part in branch.items()}
        second = {task: part[-1] if isinstance(part[-1], Tensor) else part[-1].t for task, part in parts.items()}
        first = {task: 0 if alone else part[0] for task, part in parts.items()}
        ((first["a"] + second["a"]).square().mean() + 100 * (first["b"] - second["b"] - 1).square().mean()).backward()
        found.append([encoder.weight.grad for encoder in encoders[alone:]])
        if how is wrap:
            assert second["a"] is not levels[1]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_fork_branches_have_the_other_fields_of_an_object() -> None:
    parts = make_parts()
    note = types.SimpleNamespace(mask=torch.ones(3), name="n")
    holder = Plain(parts.encoder(parts.x))
    branch = parts.fork({"z": holder, "note": note, "size": 7})
    assert branch["a"]["note"] is note
    assert branch["a"]["size"] == 7
    assert branch["a"]["z"].size == 3
    assert holder.t.grad_fn is not branch["a"]["z"].t.grad_fn


class Stubborn:
    def __init__(self, t: Tensor) -> None:
        self.t = t

    def __copy__(self) -> Stubborn:
        return self


class Bag(dict[str, Tensor]):
    pass


def test_fork_refuses_distributed_features_in_the_forward(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parts = make_parts()
        z: Any = distribute_tensor(
            parts.encoder(parts.x).detach(), init_device_mesh("cpu", (1,)), [Shard(0)]
        ).requires_grad_()
        with pytest.raises(ValueError, match=r"a DTensor: pass z\.to_local\(\)"):
            parts.fork(z)
        with pytest.raises(ValueError, match=r"z\.full_tensor\(\)"):
            parts.fork({"z": [z]})
        branch = parts.fork(z.to_local())
        (parts.loss("a", branch["a"]) + parts.loss("b", branch["b"])).backward()
        assert parts.fork.balance is not None
    finally:
        dist.destroy_process_group()


def circular(t: Tensor) -> Any:
    one, two = types.SimpleNamespace(t=t), types.SimpleNamespace(size=3)
    one.two, two.one = two, one
    return one


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (Stubborn, "a Stubborn whose field 't'"),
        (lambda t: types.SimpleNamespace(bag=Bag(x=t)), "a SimpleNamespace whose field 'bag'.*Bag"),
        (circular, "a SimpleNamespace whose field 't'.*circle"),
        (lambda t: {t}, "got a set"),
        (lambda t: Bag(x=t), "got a Bag"),
        (lambda t: Plain(t.detach()), "no field of Plain is such a tensor"),
        (lambda t: torch.complex(t, t), "view_as_real"),
        (lambda t: t.to_sparse(), "to_dense"),
        (lambda t: torch.nested.nested_tensor_from_jagged(t, torch.tensor([0, 3, 8])), r"values\(\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*prototype")
def test_fork_refuses_features_that_cannot_be_balanced_with_their_type_and_field(wrap: Any, words: str) -> None:
    parts = make_parts()
    with pytest.raises(ValueError, match=words) as caught:
        parts.fork([wrap(parts.encoder(parts.x))])
    assert "frozen" not in str(caught.value)


# --- checkpoints -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["own", "weighted"])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO(), pt.GradNorm(), pt.MGDA(normalize="loss")], ids=repr)
def test_fork_losses_recorded_within_a_checkpoint_equal_those_without(method: Method[Any], heads: str) -> None:
    inside, outside = make_parts(method, heads=heads), make_parts(method, heads=heads)
    for _ in range(3):
        for parts, packed in ((inside, True), (outside, False)):

            def forward(x: Tensor, parts: Parts = parts) -> tuple[Tensor, ...]:
                branch = parts.fork(parts.encoder(x))
                return tuple(parts.fork.losses({t: parts.loss(t, branch[t]) for t in "ab"}).values())

            losses = checkpoint(forward, parts.x, use_reentrant=False) if packed else forward(parts.x)
            (losses[0] + losses[1]).backward()
    torch.testing.assert_close(inside.gradients(), outside.gradients(), rtol=1e-12, atol=1e-14)
    for name, value in outside.fork.state_dict().items():
        torch.testing.assert_close(inside.fork.state_dict()[name], value, rtol=1e-12, atol=1e-14, equal_nan=True)


def test_fork_copy_checks_its_own_use() -> None:
    parts = make_parts()
    warnings_of(lambda: step_with_heads(parts, lambda task, z, branch: branch["a"], records_losses=False))
    other = parts._replace(fork=copy.deepcopy(parts.fork))
    assert warnings_of(
        lambda: step_with_heads(other, lambda task, z, branch: z if task == "b" else branch[task], records_losses=False)
    )


def test_fork_does_not_warn_of_random_batches_with_few_labels(recwarn: pytest.WarningsRecorder) -> None:
    """The labelled rows of two tasks often do not meet; no row belongs to any task by construction."""
    torch.manual_seed(0)
    encoder, heads = nn.Linear(5, 6), nn.ModuleDict({"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)})
    fork = pt.Fork(pt.MGDA(), tasks=("a", "b"))
    for _ in range(60):
        branch = fork(encoder(torch.randn(32, 5)))
        rows = {task: torch.randperm(32)[:4] for task in heads}
        sum(heads[task](branch[task])[rows[task]].square().mean() for task in heads).backward()
    assert not [warning for warning in recwarn if "by construction" in str(warning.message)]
