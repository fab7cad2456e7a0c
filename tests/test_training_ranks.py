"""Training of one run on several ranks: the numbers of one process, resume with other ranks, refusals, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretorch.training import train
from paretorch.training.distributed.checks import check_ranks
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.record.result import Result
from ranks import on_ranks
from ranks_training import FILE, numbers, raised, run_of, trained
from ranks_workload import Shared

EXACT = 1e-10
PARAMETERS = {"surface": "parameters"}
MISSING = {"options": {"missing": True}}  # shares of a batch with unequal numbers of labels, and with none
NONE = {"options": {"missing": True, "unlabelled": True}, "batch_size": 2}


def torchrun(folder: Path, *arguments: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """``paretorch train`` on ranks of this machine, started as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    path = os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, "-m", "paretorch.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def by_command(epochs: int, workload: str = f"{FILE}(missing=True)", *more: str) -> list[str]:
    given = ["train", workload, "--method", "MGDA()", "--epochs", str(epochs), "--batch-size", "5", "--seed", "4"]
    return [*given, "--device", "cpu", "--out", "run", *more]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert torch.equal(one.isnan(), other.isnan())
    return float((one - other).abs().nan_to_num().max())


def test_ranks_by_torchrun_equal_one_process(tmp_path: Path) -> None:
    done = torchrun(tmp_path, *by_command(1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("after the last epoch") == 1
    expected = train(run_of({"epochs": 1, **MISSING}), tmp_path / "one", progress=None)
    result = Result.load(tmp_path / "run")
    assert result.facts["ranks"] == 2
    assert difference(numbers(result), numbers(expected)) < EXACT
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ranks"] == 2


CASES: dict[str, dict[str, Any]] = {
    "plain": {"method": "Equal()", **MISSING},
    "features": {"method": "IMTLG()", **MISSING},
    "features, weighted heads": {"door": {"heads": "weighted"}},
    "features, losses": {"method": "Uncertainty()", **MISSING},
    "features, observes": {"method": "FAMO()"},
    "features, epochs": {"method": "DWA()"},
    "features, random": {"method": "RLW()"},
    "features, every": {"method": "UPGrad()", "door": {"every": 3}},
    "parameters": {"method": "UPGrad()", **PARAMETERS, **MISSING},
    "parameters, jacobian": {"method": "PCGrad()", **PARAMETERS},
    "parameters, losses": {"method": "DBMTL()", **PARAMETERS, **MISSING},
    "parameters, state": {"method": "Momentum(MGDA())", **PARAMETERS},
    "features, ranks without loss": {"method": "MGDA()", **NONE},
    "features, observes, ranks without loss": {"method": "FAMO()", **NONE},
    "parameters, ranks without loss": {"method": "UPGrad()", **PARAMETERS, **NONE},
    "parameters, losses, ranks without loss": {"method": "Uncertainty()", **PARAMETERS, **NONE},
    "plain, ranks without loss": {"method": "Equal()", "tasks": ("size",), **NONE},
    "AdaTask, ranks without loss": {"method": "Equal()", "optimizer": "AdaTask", **NONE},
    "own inputs": {"options": {"own_inputs": True}, **PARAMETERS},
    "one task": {"tasks": ("sign",), **MISSING},
    "AdaTask": {"method": "Equal()", "optimizer": "AdaTask", **MISSING},
    "MTAdam": {"method": "Equal()", "optimizer": "MTAdam"},
    "MTAdamV2": {"method": "Equal()", "optimizer": "MTAdamV2"},
    "Preconditioned": {"optimizer": "Preconditioned"},
    "clip, schedule": {"clip": 0.5, "schedule": "cosine", "optimizer": "SGD", "optimizer_options": {"lr": 0.1}},
    "best epoch": {"keep": "best", "optimizer_options": {"lr": 0.1}},
    "rows": {"options": {"loader": "rows"}},
    "iterated": {"options": {"loader": "iterated"}},
    "deterministic": {"deterministic": True},
}


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_equal_one_process(ranks: int, tmp_path: Path) -> None:
    cases = {name: case for name, case in CASES.items() if case.get("batch_size", ranks) >= ranks}  # a sample for each
    expected = trained(0, str(tmp_path / "one"), cases)
    (tmp_path / "several").mkdir()
    for found in on_ranks(trained, ranks, tmp_path, str(tmp_path / "several"), cases):
        differences = {name: difference(found[name], expected[name]) for name in cases}
        assert {name: value for name, value in differences.items() if not value < EXACT} == {}


@pytest.mark.long
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("loader", ["", "iterated"])
def test_ranks_resume_a_run_of_another_number_of_ranks(first: int, then: int, loader: str, tmp_path: Path) -> None:
    options = {"loader": loader, "missing": True}
    expected = trained(0, str(tmp_path / "whole"), {"run": {"options": options}})["run"]
    parts = tmp_path / "parts"
    parts.mkdir()
    for ranks, epochs in ((first, 1), (then, 3)):
        cases = {"run": {"options": options, "epochs": epochs}}
        found = on_ranks(trained, ranks, tmp_path, str(parts), cases) if ranks > 1 else [trained(0, str(parts), cases)]
    for each in found:
        assert difference(each["run"], expected) < EXACT


@pytest.mark.long
def test_ranks_with_batch_norm_warn_that_statistics_are_of_shares(tmp_path: Path) -> None:
    done = torchrun(tmp_path, *by_command(1, f"{FILE}(norm=True)", "--batch-size", "12"))
    assert done.returncode == 0, done.stderr
    assert "batch norm, whose statistics in training are of each rank's share" in done.stderr
    assert Result.load(tmp_path / "run").facts["troubles"][0].startswith("the model has batch norm")


@pytest.mark.long
def test_ranks_that_fail_end_all_with_one_error(tmp_path: Path) -> None:
    done = torchrun(tmp_path, *by_command(1, f"{FILE}(broken=True)"))
    assert done.returncode != 0
    assert done.stderr.count("the disk of this machine is missing") == 1
    assert "Rank 1 of 2 has failed" in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.long
def test_ranks_refuse_other_commands_and_bad_options_in_one_message(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "diagnose", "synthetic")
    assert done.returncode != 0
    assert done.stderr.count("torchrun is for `paretorch train`; `paretorch diagnose` runs in one process") == 1
    done = torchrun(tmp_path, *by_command(1, FILE, "--optimizer", "NoSuchOptimizer()"))
    assert done.stderr.count("NoSuchOptimizer") == 1


@pytest.mark.long
def test_ranks_raise_the_error_of_one_rank_on_all(tmp_path: Path) -> None:
    first, second = on_ranks(raised, 2, tmp_path, str(tmp_path), {"broken": {"options": {"broken": True}}})
    assert second["broken"] == ["OSError", "the disk of this machine is missing"]
    assert first["broken"][0] == "OtherRankError"
    assert "rank 1 has failed: OSError: the disk" in first["broken"][1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "Backtracking"}, "Backtracking is a line search.*in one process, without torchrun"),
        ({"front": "MT2O()"}, r"a front \(MT2O\(\)\).*one process"),
        ({"batch_size": 1}, "at least one for each of 2 ranks, got 1"),
        ({"device": "cuda:1"}, "a device of its own, got 'cuda:1': use 'cuda'"),
    ],
)
def test_ranks_refuse_what_one_process_trains(changes: dict[str, Any], message: str) -> None:
    run = run_of(changes)
    check_ranks(run, Ranks())
    with pytest.raises(ValueError, match=message):
        check_ranks(run, Ranks(1, 2))


def test_ranks_of_one_process_communicate_nothing() -> None:
    ranks = Ranks.current()
    assert (ranks.rank, ranks.size, ranks.facts) == (0, 1, {})
    losses = {"sign": torch.tensor(2.0, requires_grad=True)}
    shared = ranks.shared_losses(Shared(), (), losses)
    assert shared.local is losses
    assert shared.again(losses) == losses
    assert shared.whole["sign"].requires_grad is False
