"""Trainings, studies and packings that are killed at random instants and continued give the result of uninterrupted ones."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from faults.experiments import (
    RUNS,
    RUNS_ALONE,
    Experiment,
    pack_experiment,
    run_experiment,
    study_experiment,
    weights_experiment,
)
from faults.processes import NONE, Fault, Outcome, run_process
from image_folders import write_both

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)
QUICK = (  # with a state that is large, or that each step changes
    "optimizer-MTAdamV2", "search-FastBacktracking", "method-NashMTL", "method-FAMO", "front-MT2O",
)  # fmt: skip
Stamps = dict[str, tuple[int, int]]


def random_kill(draws: random.Random, whole: Outcome) -> Fault:
    """A signal at one of the operations on files of an uninterrupted process, or at a moment."""
    number = draws.choice(SIGNALS)
    if draws.random() < 0.6:
        return Fault(number, operation=draws.randrange(1, len(whole.operations) + 1))
    return Fault(number, seconds=draws.uniform(0, whole.seconds))


def results(folder: Path) -> Stamps:
    """What identifies each finished result in a folder: it changes where the file is written again."""
    names = ("result.json", "weights.json")
    found = {str(path.relative_to(folder)): path.stat() for name in names for path in folder.rglob(name)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def check_kills(experiment: Experiment, folder: Path, kills: int, seed: int) -> None:
    """Kills processes ``kills`` times; each time that they finish, their numbers must be those of an uninterrupted one."""
    draws, killed, tried = random.Random(seed), 0, 0
    whole = run_process(experiment.start, folder / "whole")
    assert whole.finished, whole
    expected = experiment.numbers(folder / "whole")
    while killed < kills:
        attempt, tried = folder / f"killed-{tried}", tried + 1
        before: Stamps = {}
        finished = False
        while not finished:
            fault = random_kill(draws, whole) if killed < kills else NONE
            outcome = run_process(experiment.start, attempt, fault)
            killed, finished = killed + (outcome.signal is not None), outcome.finished
            assert finished or outcome.signal == fault.signal, (fault, outcome)
            after = results(attempt)
            assert after.items() >= before.items(), "a finished run was lost, or trained again"
            before = after
        assert experiment.numbers(attempt) == expected, fault
    assert run_process(experiment.start, attempt).finished
    assert results(attempt) == before, "a finished run was trained again"


@pytest.mark.parametrize("name", QUICK)
def test_killed_training_equals_uninterrupted_training(name: str, tmp_path: Path, seed: int) -> None:
    check_kills(run_experiment(RUNS[name]), tmp_path, kills=3, seed=seed)


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_killed_training_of_every_kind_equals_uninterrupted_training(
    name: str, tmp_path: Path, seed: int, given_count: int | None
) -> None:
    check_kills(run_experiment(RUNS[name]), tmp_path, kills=given_count or 3, seed=seed)


WEIGHTS = {  # a method with a state, and the population whose balanced run has none
    "run": weights_experiment("MoCo()", members=None),
    "population": weights_experiment("IMTLG()", members=4, schedule="cosine", options={"samples": 120, "own_inputs": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_killed_search_of_weights_equals_an_uninterrupted_one(name: str, tmp_path: Path, seed: int) -> None:
    check_kills(WEIGHTS[name], tmp_path, kills=3, seed=seed)


@pytest.mark.long
@pytest.mark.parametrize("name", WEIGHTS)
def test_killed_search_of_weights_in_a_long_campaign(
    name: str, tmp_path: Path, seed: int, given_count: int | None
) -> None:
    check_kills(WEIGHTS[name], tmp_path, kills=given_count or 12, seed=seed)


def test_killed_packing_gives_the_bytes_of_an_uninterrupted_one(tmp_path: Path, seed: int) -> None:
    check_kills(pack_experiment(write_both(tmp_path / "data")), tmp_path, kills=6, seed=seed)


@pytest.mark.long
def test_killed_packing_in_a_long_campaign(tmp_path: Path, seed: int, given_count: int | None) -> None:
    check_kills(pack_experiment(write_both(tmp_path / "data")), tmp_path, kills=given_count or 30, seed=seed)


def check_killed_study(
    experiment: Experiment, whole: Experiment, folder: Path, kills: int, worker_kills: int, seed: int
) -> None:
    """Kills the process of a study, and its workers; the results must be those of an uninterrupted one.

    Args:
        experiment: the study, with the folder ``faults``.
        whole: has its numbers.
        folder: for the studies.
        kills: signals to the process of the study.
        worker_kills: signals to workers, of which each ends one run.
        seed: of the instants.
    """
    draws, left, tried = random.Random(seed), kills, 0
    uninterrupted = run_process(whole.start, folder / "whole")
    assert uninterrupted.finished, uninterrupted
    expected = whole.numbers(folder / "whole")
    for _ in range(worker_kills):
        (folder / "faults" / f"{draws.randrange(1, 40)}-{draws.choice(SIGNALS).name}").touch()
    while left > 0 or tried == 0:
        attempt, tried = folder / f"killed-{tried}", tried + 1
        before: Stamps = {}
        finished = False
        while not finished:
            fault = Fault(draws.choice(SIGNALS), operation=draws.randrange(1, 20)) if left > 0 else NONE
            outcome = run_process(experiment.start, attempt, fault)
            left, finished = left - (outcome.signal is not None), outcome.finished
            assert outcome.signal is not None or outcome.error in ("", "RunsFailedError"), outcome
            after = results(attempt)
            assert after.items() >= before.items(), "a finished run was lost, or trained again"
            before = after
        assert experiment.numbers(attempt) == expected
    assert not list((folder / "faults").iterdir()), "a worker received each signal"


def test_killed_study_equals_runs_that_are_trained_alone(tmp_path: Path, seed: int) -> None:
    check_killed_study(study_experiment(tmp_path / "faults"), RUNS_ALONE, tmp_path, 1, worker_kills=1, seed=seed)


@pytest.mark.long
def test_killed_study_in_a_long_campaign(tmp_path: Path, seed: int, given_count: int | None) -> None:
    experiment, count = study_experiment(tmp_path / "faults", workers=2), given_count or 8
    check_killed_study(experiment, RUNS_ALONE, tmp_path, count, worker_kills=count, seed=seed)


@pytest.mark.long
def test_killed_tuning_equals_uninterrupted_tuning(tmp_path: Path, seed: int, given_count: int | None) -> None:
    # no worker is killed: such a trial would have no result, and another setting could be chosen
    experiment = study_experiment(tmp_path / "faults", tune=2, workers=2)
    check_killed_study(experiment, experiment, tmp_path, given_count or 8, worker_kills=0, seed=seed)
