"""Gradients on several ranks against one process on the joined batch, in float64."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
import ranks
from ranks import METHODS, on_ranks, present_on, rank_data
from small_models import TASKS, Net, data, gradients, losses_of, total

STEPS = 3
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # DDP's own, about unused parameters and strides


def joined_losses(
    net: Net, world: int, split: str, branches: list[dict[str, Tensor]] | None = None
) -> dict[str, Tensor]:
    """Losses averaged over ranks: a task that is absent on a rank adds nothing there."""
    means: dict[str, Tensor] = {}
    for rank in range(world):
        x, targets = rank_data(rank)
        z = net.encoder(x) if branches is None else None
        for task in present_on(rank, split):
            features = z if branches is None else branches[rank][task]
            loss = losses_of({task: net.heads[task](features)}, targets)[task] / world
            means[task] = means[task] + loss if task in means else loss
    return {task: means[task] for task in TASKS if task in means}


def one_process(method: str, world: int, split: str, surface: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The same steps in one process on all ranks' data."""
    fork = pt.Fork(METHODS[method](), TASKS, group=None)
    net = Net(fork=fork)
    balancer = pt.Balancer(METHODS[method](), TASKS, shared=net.encoder)
    found = []
    for _ in range(STEPS):
        net.zero_grad()
        if surface == "features":
            features = [net.encoder(rank_data(rank)[0]) for rank in range(world)]
            forked = fork(tuple(features))
            branches = [{task: forked[task][rank] for task in TASKS} for rank in range(world)]
            total(fork.losses(joined_losses(net, world, split, branches))).backward()
        else:
            balancer.backward(joined_losses(net, world, split))
        found.append(gradients(net))
        with torch.no_grad():
            for p in net.parameters():
                if p.grad is not None:
                    p.sub_(0.05 * p.grad)
        if fork.method.observes:
            with torch.no_grad(), fork.paused():
                fork.observe(joined_losses(net, world, split))
    return torch.stack(found), (fork if surface == "features" else balancer).state_dict()


def check_ranks(results: list[Any], expected: tuple[Tensor, dict[str, Tensor]]) -> float:
    right, state = expected
    difference = 0.0
    for result in results:
        assert result["state"].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(result["state"][name], value, rtol=1e-10, atol=1e-12, equal_nan=True)
        error = (result["gradients"] - right).norm() / right.norm()
        difference = max(difference, float(error))
    return difference


TWO = (
    *(("fork", method, ddp, "all") for method in ("mgda", "famo", "loss+") for ddp in ranks.DDP),
    *(
        ("fork", method, "unused", split)
        for method, split in (("mgda", "some"), ("mgda", "nothing"), ("uncertainty", "some"))
    ),
    ("fork", "famo", "unused", "nothing"),
    *(("balancer", method, "plain", "all") for method in ("mgda", "upgrad", "uncertainty")),
    ("balancer", "mgda", "unused", "all"),
    ("balancer", "upgrad", "unused", "some"),
    *(("total", method, "plain", "all") for method in ("mgda", "famo", "loss+")),
    ("total", "upgrad", "unused", "some"),
    *(("total inside", method, "plain", "all") for method in ("upgrad", "uncertainty")),
    *(("accumulated", method, "plain", "all") for method in ("mgda", "uncertainty", "pcgrad")),
    ("accumulated", "upgrad", "unused", "some"),
    ("fork", "graddrop", "plain", "all"),
)
FOUR = (
    *(("fork", method, "plain", "all") for method in ("upgrad", "pcgrad", "uncertainty", "mgda")),
    ("fork", "upgrad", "unused", "some"),
    ("balancer", "pcgrad", "plain", "all"),
    ("total", "mgda", "plain", "all"),
    ("accumulated", "mgda", "unused", "all"),
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(ranks.every_case, 2, tmp_path_factory.mktemp("two"), TWO, STEPS)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(ranks.every_case, 4, tmp_path_factory.mktemp("four"), FOUR, STEPS)


def difference(results: list[dict[str, Any]], case: tuple[str, str, str, str], world: int) -> float:
    by, method, _, split = case
    surface = "features" if by == "fork" else "parameters"
    return check_ranks([result["/".join(case)] for result in results], one_process(method, world, split, surface))


@pytest.mark.parametrize("case", [case for case in TWO if case[1] != "graddrop"], ids="/".join)
def test_ddp_on_two_ranks_equals_one_process(two: list[dict[str, Any]], case: tuple[str, str, str, str]) -> None:
    assert difference(two, case, 2) <= 1e-12


@pytest.mark.long
@pytest.mark.parametrize("case", FOUR, ids="/".join)
def test_ddp_on_four_ranks_equals_one_process(four: list[dict[str, Any]], case: tuple[str, str, str, str]) -> None:
    assert difference(four, case, 4) <= 1e-12


SHARDED = (
    *((method, parts, "all") for method in ("mgda", "upgrad") for parts in ("root", "encoder", "layers")),
    ("uncertainty", "root", "all"),
    ("famo", "layers", "all"),
)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(ranks.sharded_steps, 2, tmp_path_factory.mktemp("sharded"), SHARDED, STEPS)


@pytest.mark.parametrize("case", SHARDED, ids="/".join)
def test_fork_under_fully_shard_equals_one_process(sharded: list[dict[str, Any]], case: tuple[str, str, str]) -> None:
    method, _, split = case
    expected = one_process(method, 2, split, "features")
    assert check_ranks([result["/".join(case)] for result in sharded], expected) <= 1e-12


@pytest.mark.long
def test_fork_under_fully_shard_on_four_ranks_equals_one_process(tmp_path: Path) -> None:
    results = on_ranks(ranks.sharded_steps, 4, tmp_path, SHARDED[:3], STEPS)
    expected = one_process("mgda", 4, "all", "features")
    for case in SHARDED[:3]:
        assert check_ranks([result["/".join(case)] for result in results], expected) <= 1e-12


def test_ddp_random_draws_are_equal_on_all_ranks(two: list[dict[str, Any]]) -> None:
    one, other = (result["fork/graddrop/plain/all"] for result in two)
    assert torch.equal(one["gradients"], other["gradients"])
    assert one["state"]["steps"] == STEPS


def test_ddp_ranks_refuse_different_declarations_static_graphs_and_searched_totals(tmp_path: Path) -> None:
    for names, static, weighted, empty, *totals in on_ranks(ranks.refusals, 2, tmp_path):
        assert "same tasks, in the same order" in names
        assert "rank 1" in names
        assert "static_graph" in static
        assert "static_graph=True" in weighted
        assert "let its forward also return the features" in empty
        assert ["find_unused_parameters=True" in totals[0], "static_graph=True" in totals[1]] == [True, True]
        assert all("call balancer.total on them outside" in answer for answer in totals)


@pytest.mark.long
def test_ddp_groups_average_over_their_own_ranks(tmp_path: Path) -> None:
    own, half = torch.stack(on_ranks(ranks.alone_in_a_group, 4, tmp_path)).T
    squares = torch.tensor([6 * (2.0 * (rank + 1)) ** 2 for rank in range(4)], dtype=torch.float64)
    torch.testing.assert_close(own, squares)
    torch.testing.assert_close(half, squares.view(2, 2).sum(dim=1).repeat_interleave(2) / 4)


def test_ddp_with_find_unused_parameters_accepts_a_loss_that_is_missing_on_one_rank(tmp_path: Path) -> None:
    """The next forward goes through, as after a plain backward, and the gradients are those of one process."""
    results = on_ranks(ranks.missing_losses, 2, tmp_path)
    net, found = Net(), []
    balancer = pt.Balancer(pt.MGDA(), TASKS, shared=net.encoder)
    for step in range(4):
        net.zero_grad()
        means: dict[str, Tensor] = {}
        for rank in range(2):
            x, targets = data(seed=31 * step + rank)
            for task, loss in losses_of(net(x), targets).items():
                if not (rank == 1 and (task == "b" or step == 3)):
                    means[task] = means.get(task, torch.zeros(())) + loss / 2
        balancer.backward(means)
        found.append(gradients(net))
    expected = torch.stack(found)
    for result in results:
        assert float((result["balancer"] - expected).norm() / expected.norm()) <= 1e-12
        assert bool(result["plain"].any(dim=1).all())


def test_ddp_with_absent_tasks_equals_one_process(tmp_path: Path) -> None:
    """Also where a rank gives zeros for a task that no rank has, and where a last micro-batch lacks a task."""
    results = on_ranks(ranks.absent_tasks, 2, tmp_path)
    for method in (pt.UPGrad(), pt.Uncertainty(), pt.IMTLL()):
        for case, present in ranks.ABSENT.items():
            net, parts, found = Net(), 1 if case == "everywhere" else 2, []
            balancer = pt.Balancer(method, TASKS, shared=net.encoder)
            means: dict[str, Tensor] = {}
            for place in range(2):
                if place % parts == 0:
                    net.zero_grad()
                    means = {}
                for rank in range(2):
                    x, targets = data(seed=31 * place + rank)
                    z = net.encoder(x)
                    outputs = {task: net.heads[task](z) for task in present[rank][place]}
                    for task, loss in losses_of(outputs, targets).items():
                        means[task] = means.get(task, torch.zeros(())) + loss / 2
                if (place + 1) % parts == 0:
                    balancer.backward(means)
                    found.append(gradients(net))
            expected = torch.stack(found)
            for result in results:
                error = (result[f"{method}/{case}"] - expected).norm() / expected.norm()
                assert float(error) <= 1e-10, (method, case)


@pytest.mark.parametrize("unused", [False, True])
def test_ddp_accepts_a_rank_without_losses_outside_of_the_wrapper(tmp_path: Path, unused: bool) -> None:
    """The wrapper requires gradients of the heads too: they depend on the zero of ``fork.losses({})``."""
    results = on_ranks(ranks.no_recorded_losses, 2, tmp_path, unused)
    for method in (pt.MGDA(), pt.FAMO()):
        net, found = Net(fork=pt.Fork(method, TASKS, group=None)), []
        for step in range(4):
            net.zero_grad()
            batches = [data(seed=31 * step + rank) for rank in range(2)]
            outputs = net(torch.cat([x for x, _ in batches]))
            there = [rank for rank in range(2) if not ((rank == 1 and step in (1, 2)) or (rank == 0 and step == 3))]
            parts = {task: output.chunk(2) for task, output in outputs.items()}
            losses = {
                task: torch.stack(
                    [losses_of({task: parts[task][rank]}, batches[rank][1])[task] / 2 for rank in there]
                ).sum()
                for task in TASKS
            }
            total(net.fork.losses(losses)).backward()
            found.append(gradients(net))
        expected = torch.stack(found)
        for result in results:
            assert float((result[repr(method)] - expected).norm() / expected.norm()) <= 1e-12


def losses_of_all(net: Net, seeds: range, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The losses of one process on the batches of all ranks."""
    batches = [data(seed=seed) for seed in seeds]
    outputs = net(torch.cat([x for x, _ in batches]))
    targets = {task: torch.cat([each[task] for _, each in batches]) for task in TASKS}
    return {task: loss for task, loss in losses_of(outputs, targets).items() if task not in without}


def test_ddp_skips_a_task_that_is_not_finite_on_one_rank(tmp_path: Path) -> None:
    """As one process does, without ``find_unused_parameters``; the head of the skipped task has no gradient."""
    results = on_ranks(ranks.skipped_tasks, 2, tmp_path)
    for method in (pt.MGDA(), pt.UPGrad(), pt.FAMO()):
        net, found = Net(), []
        balancer = pt.Balancer(method, TASKS, shared=net.encoder)
        for step in range(3):
            net.zero_grad()
            balancer.backward(losses_of_all(net, range(31 * step, 31 * step + 2), ("b",) if step == 1 else ()))
            found.append(gradients(net))
        expected = torch.stack(found)
        for kind, parts in itertools.product(ranks.BROKEN, (1, 2)):
            case = f"{method}/{kind}/{parts}"
            for result in results:
                error = (result[case] - expected).norm(dim=1) / expected.norm(dim=1)
                assert float(error.max()) <= 1e-10, case
                assert result[f"{case}/none"].tolist() == [False, True, False], case


@pytest.mark.parametrize("how", ranks.WRAPPED)
@pytest.mark.sampled(2)
def test_wrapped_model_continues_after_a_step_of_a_fork_that_is_not_finite(how: str, tmp_path: Path) -> None:
    """Nan on one rank: all ranks raise, with zeros on the encoder, or skip the task; the next step is that of one process."""
    results = on_ranks(ranks.forked_errors, 2, tmp_path, how)
    encoder = sum(parameter.numel() for parameter in Net().encoder.parameters())
    for method in (pt.MGDA(), pt.FAMO()):
        for nonfinite in ("raise", "skip"):
            net, found = Net(fork=pt.Fork(method, TASKS)), []
            for step in range(3):
                net.zero_grad()
                if step != 1 or nonfinite == "skip":
                    seeds = range(31 * step, 31 * step + 2)
                    total(net.fork.losses(losses_of_all(net, seeds, ("b",) if step == 1 else ()))).backward()
                found.append(gradients(net))
            expected = torch.stack(found)
            for kind, result in itertools.product(ranks.BROKEN, results):
                case = f"{method}/{nonfinite}/{kind}"
                assert int(result[f"{case}/caught"]) == (nonfinite == "raise"), case
                difference = result[case] - expected
                assert float(difference[::2].norm()) <= 1e-10 * float(expected[::2].norm()), case
                if kind == "loss" or method == pt.MGDA():  # FAMO has chosen the weights when the gradients are known
                    assert float(difference[1, :encoder].norm()) <= 1e-10 * float(expected[0].norm()), case


@pytest.mark.parametrize("unused", [False, True])
def test_ddp_accepts_a_rank_without_losses_in_its_first_step(tmp_path: Path, unused: bool) -> None:
    results = on_ranks(ranks.nothing_in_the_first_step, 2, tmp_path, unused)
    net, found = Net(fork=pt.Fork(pt.MGDA(), TASKS, group=None)), []
    for step in range(3):
        net.zero_grad()
        losses = losses_of_all(net, range(31 * step, 31 * step + 1))
        total(net.fork.losses({task: loss / 2 for task, loss in losses.items()})).backward()
        found.append(gradients(net))
    expected = torch.stack(found)
    for result in results:
        for returned, value in result.items():
            assert float((value - expected).norm() / expected.norm()) <= 1e-12, returned


def test_ddp_accepts_a_rank_without_losses_with_outputs_in_an_object(tmp_path: Path) -> None:
    results = on_ranks(ranks.nothing_of_an_object, 2, tmp_path)
    net, found = Net(fork=pt.Fork(pt.MGDA(), TASKS, group=None)), []
    for step in range(3):
        net.zero_grad()
        losses = losses_of_all(net, range(31 * step, 31 * step + (2 if step == 2 else 1)))
        total(net.fork.losses({task: loss / (1 if step == 2 else 2) for task, loss in losses.items()})).backward()
        found.append(gradients(net))
    expected = torch.stack(found)
    for result in results:
        assert float((result["gradients"] - expected).norm() / expected.norm()) <= 1e-12


def test_ddp_step_in_which_every_task_is_skipped_moves_nothing(tmp_path: Path) -> None:
    for result in on_ranks(ranks.skipped_steps, 2, tmp_path):
        assert len(result) == 6
        for case, found in result.items():
            assert found == [True, 0.0], case


def test_ddp_refuses_a_rank_without_losses_on_all_ranks_if_it_would_block(tmp_path: Path) -> None:
    for answers in on_ranks(ranks.no_losses, 2, tmp_path):
        assert all("0 * output.sum()" in answer for answer in answers), answers


def test_ddp_with_uneven_inputs_raises_on_all_ranks(tmp_path: Path) -> None:
    for answers in on_ranks(ranks.uneven_inputs, 2, tmp_path):
        assert all("throw_on_early_termination" in answer for answer in answers), answers


def test_balancer_refuses_sharded_parameters_and_suggests_the_fork(tmp_path: Path) -> None:
    for answers in on_ranks(ranks.divided, 2, tmp_path):
        wrong = {case: answer for case, answer in answers.items() if "paretorch.Fork" not in answer}
        stale = {
            case: answer for case, answer in wrong.items() if "no loss reaches any parameter of shared=" not in answer
        }
        assert not stale
