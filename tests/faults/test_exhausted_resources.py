"""A full disk, no file handle left, a folder that cannot be written: a clear error, and the same call completes later."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from command_line import call
from faults.disks import read_only, small_disk
from faults.experiments import RUNS, RUNS_ALONE, Experiment, pack_experiment, run_experiment, study_experiment
from faults.processes import NONE, Fault, Outcome, run_process
from faults.test_kills import Stamps, results
from image_folders import write_both
from training_runs import TINY

SYSTEM = ("OSError", "PermissionError")  # the classes of errors of the operating system
KINDS = ("option-best", "front-MT2O", "packing")
DrawFault = Callable[[random.Random, Path], Fault]


def experiment_of(kind: str, folder: Path) -> Experiment:
    return pack_experiment(write_both(folder / "data")) if kind == "packing" else run_experiment(RUNS[kind])


def size_limit(draws: random.Random, whole: Path) -> Fault:
    """A limit below the size of the largest file."""
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    return Fault(file_bytes=draws.randrange(largest))


def handle_limit(draws: random.Random, whole: Path) -> Fault:
    del whole
    return Fault(handles=draws.randrange(6))


def check_error(outcome: Outcome, reasons: tuple[str, ...]) -> None:
    """Checks that a process ended by itself: without an error, or with one of the operating system that has a known reason."""
    assert outcome.signal is None, outcome
    assert outcome.finished or (outcome.error in SYSTEM and outcome.message.startswith(reasons)), outcome


FULL = ("[ENOSPC]", "[EFBIG]")
REASONS: dict[DrawFault, tuple[str, ...]] = {size_limit: FULL, handle_limit: ("[EMFILE]",)}


def check_exhausted(kind: str, folder: Path, draw: DrawFault, count: int, seed: int) -> int:
    """Starts in ``count`` folders with a fault and again without; returns the number of faults that ended a process."""
    experiment, draws, failed = experiment_of(kind, folder), random.Random(seed), 0
    assert run_process(experiment.start, folder / "whole").finished
    expected = experiment.numbers(folder / "whole")
    for number in range(count):
        attempt = folder / f"exhausted-{number}"
        outcome = run_process(experiment.start, attempt, draw(draws, folder / "whole"))
        check_error(outcome, REASONS[draw])
        if draw is size_limit and not outcome.finished:
            assert attempt.name in outcome.message, outcome
        failed += not outcome.finished
        assert run_process(experiment.start, attempt).finished
        assert experiment.numbers(attempt) == expected
        assert not list(attempt.rglob("*writing*"))
    return failed


@pytest.mark.parametrize("draw", REASONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(2)
def test_exhausted_resource_is_an_error_and_the_same_call_completes(
    kind: str, draw: DrawFault, tmp_path: Path, seed: int
) -> None:
    assert check_exhausted(kind, tmp_path, draw, 2, seed) >= 1


@pytest.mark.long
@pytest.mark.parametrize("draw", REASONS)
@pytest.mark.parametrize("kind", KINDS)
def test_exhausted_resource_in_a_long_campaign(
    kind: str, draw: DrawFault, tmp_path: Path, seed: int, given_count: int | None
) -> None:
    count = given_count or 30
    assert check_exhausted(kind, tmp_path, draw, count, seed) >= count / 3


@pytest.mark.long
@pytest.mark.parametrize("draw", REASONS)
def test_study_without_resources_completes_later(
    draw: DrawFault, tmp_path: Path, seed: int, given_count: int | None
) -> None:
    experiment, draws = study_experiment(tmp_path / "faults", workers=2), random.Random(seed)
    assert run_process(RUNS_ALONE.start, tmp_path / "whole").finished
    expected = RUNS_ALONE.numbers(tmp_path / "whole")
    for number in range(given_count or 4):
        attempt, before = tmp_path / f"exhausted-{number}", Stamps()
        for fault in (draw(draws, tmp_path / "whole"), NONE):
            outcome = run_process(experiment.start, attempt, fault)
            assert outcome.signal is None
            assert outcome.error in ("", "RunsFailedError", "RuntimeError", *SYSTEM), outcome
            after = results(attempt)
            assert after.items() >= before.items(), "a finished run was lost, or trained again"
            before = after
        assert outcome.finished, outcome
        assert experiment.numbers(attempt) == expected


def disk_size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def check_full_disk(kind: str, folder: Path, count: int, seed: int) -> int:
    """Starts on ``count`` disks that are too small, and again after they are larger; returns how often a disk was full."""
    experiment, draws, failed = experiment_of(kind, folder), random.Random(seed), 0
    assert run_process(experiment.start, folder / "whole").finished
    expected = experiment.numbers(folder / "whole")
    for number in range(count):
        disk = folder / f"disk-{number}"
        with small_disk(disk, draws.randrange(8192, disk_size(folder / "whole"), 4096)) as enlarge:
            outcome = run_process(experiment.start, disk / "attempt")
            check_error(outcome, FULL)
            failed += not outcome.finished
            enlarge()
            assert run_process(experiment.start, disk / "attempt").finished
            assert experiment.numbers(disk / "attempt") == expected
    return failed


@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_is_an_error_and_the_same_call_completes(kind: str, tmp_path: Path, seed: int) -> None:
    assert check_full_disk(kind, tmp_path, 1, seed) == 1


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_in_a_long_campaign(kind: str, tmp_path: Path, seed: int, given_count: int | None) -> None:
    count = given_count or 30
    assert check_full_disk(kind, tmp_path, count, seed) >= count / 3


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_folder_is_an_error_and_the_same_call_completes(kind: str, tmp_path: Path, seed: int) -> None:
    experiment, folder = experiment_of(kind, tmp_path), tmp_path / "killed"
    whole = run_process(experiment.start, tmp_path / "whole")
    middle = len(whole.operations) // 2 + random.Random(seed).randrange(-3, 4)
    assert run_process(experiment.start, folder, Fault(signal.SIGKILL, operation=middle)).signal == signal.SIGKILL
    with read_only(folder):
        outcome = run_process(experiment.start, folder)
    assert not outcome.finished
    check_error(outcome, ("[EROFS]", "[EACCES]", "[EPERM]"))
    assert str(folder) in outcome.message
    assert run_process(experiment.start, folder).finished
    assert experiment.numbers(folder) == experiment.numbers(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["option-best", "front-MT2O"])
def test_finished_training_in_a_read_only_folder_is_returned(kind: str, tmp_path: Path) -> None:
    experiment = run_experiment(RUNS[kind])
    assert run_process(experiment.start, tmp_path / "run").finished
    before = results(tmp_path)
    with read_only(tmp_path / "run"):
        assert run_process(experiment.start, tmp_path / "run").finished
    assert results(tmp_path) == before


class CommandFailedError(Exception):
    """A command ended with a code other than 0; code and output are its arguments."""


def run_command(arguments: tuple[str, ...], option: str, folder: Path) -> None:
    code, printed = call(*arguments, option, str(folder))
    if code:
        raise CommandFailedError(f"{code}: {printed}")


COMMANDS = {
    "train": (("train", TINY, "--epochs", "3", "--batch-size", "20"), "--out"),
    "front": (("front", TINY, "--models", "2", "--epochs", "3", "--batch-size", "20"), "--out"),
    "pack": (("data", "pack", "imagenet_coco(classes=3, train=24, validation=9, test=6)", "--size", "32"), "--out"),
}


@pytest.mark.parametrize("draw", [size_limit, handle_limit])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.sampled(2)
def test_command_without_resources_prints_one_message(command: str, draw: DrawFault, tmp_path: Path, seed: int) -> None:
    arguments, option = COMMANDS[command]
    if command == "pack":
        write_both(tmp_path / "data")
        arguments = (*arguments, "--root", str(tmp_path / "data"), "--workers", "0")
    start = partial(run_command, arguments, option)
    assert run_process(start, tmp_path / "whole").finished
    draws = random.Random(seed)
    outcomes = [run_process(start, tmp_path / f"cut-{n}", draw(draws, tmp_path / "whole")) for n in range(3)]
    failed = [outcome for outcome in outcomes if not outcome.finished]
    assert failed
    for outcome in failed:
        assert outcome.error == "CommandFailedError", outcome
        assert outcome.message.startswith("2: ")
        assert "Error:" in outcome.message
    for number in range(3):
        assert run_process(start, tmp_path / f"cut-{number}").finished
