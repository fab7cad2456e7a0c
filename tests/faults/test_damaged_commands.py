"""Commands on folders with damaged files: exit code 0, or one message and no traceback."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reports_many as many
from command_line import call
from damaged_files import changed_bytes, reshape_file
from faults.experiments import plain_numbers
from faults.file_kinds import json_kind
from image_folders import write_both
from paretorch.training.loop import train
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run
from training_runs import TINY, stop_after

FRONT = ("--models", "2", "--epochs", "2", "--batch-size", "20", "--seed", "3")
TRAIN = ("--epochs", "3", "--batch-size", "20", "--seed", "3", "--method", "GradNorm()")
STUDY = (
    "study",
    TINY,
    "--methods",
    "sum, UPGrad()",
    "--seeds",
    "1",
    "--epochs",
    "2",
    "--batch-size",
    "20",
    "--jobs",
    "1",
)
PACK = ("--size", "32", "--workers", "0")
TRAINS = {"train", "front", "study"}
SLOW = {"trained study"}  # whose command may start a process that trains
Make = Callable[[Path], None]


def finished_run(folder: Path) -> None:
    assert call("train", TINY, *TRAIN, "--out", str(folder))[0] == 0


def started_run(folder: Path) -> None:
    run = Run(TINY, epochs=3, batch_size=20, seed=3, method="GradNorm()")
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, progress=stop_after(2, of=3))


def finished_front(folder: Path) -> None:
    assert call("front", TINY, *FRONT, "--out", str(folder))[0] == 0


def finished_study(folder: Path) -> None:
    many.finished(folder, many.study(["sum", "other", "failed"], epochs=2), ("left", "right"), 2, failed=["failed"])


def trained_study(folder: Path) -> None:
    assert call(*STUDY, "--out", str(folder))[0] == 0


def packed_images(folder: Path) -> None:
    write_both(folder)
    assert call("data", "pack", str(folder), *PACK)[0] == 0


CASES: dict[str, tuple[Make, tuple[tuple[str, ...], ...]]] = {
    "finished run": (
        finished_run,
        (
            ("report", "FOLDER"),
            ("train", TINY, *TRAIN, "--out", "FOLDER"),
            ("export", "FOLDER", "FOLDER/model.safetensors", "--workload", TINY),
            ("pick", "FOLDER"),
        ),
    ),
    "started run": (started_run, (("train", TINY, *TRAIN, "--out", "FOLDER"), ("report", "FOLDER"))),
    "finished front": (
        finished_front,
        (("pick", "FOLDER", "0.5,0.5", "--workload", TINY), ("report", "FOLDER"), ("front", TINY, *FRONT, "--out", "FOLDER")),
    ),
    "finished study": (finished_study, (("report", "FOLDER"),)),
    "trained study": (trained_study, ((*STUDY, "--out", "FOLDER"),)),
    "packed images": (packed_images, (("data", "check", "FOLDER"), ("data", "pack", "FOLDER", *PACK))),
}  # fmt: skip


def written_files(folder: Path) -> list[Path]:
    """The files that Paretorch has written and reads."""
    endings = (".json", ".jsonl", ".safetensors", ".u8")
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix in endings]


def trained_numbers(folder: Path) -> dict[str, Any]:
    """The numbers of each finished run in a folder, without the notes on what was damaged."""
    found = {}
    for path in folder.rglob("result.json"):
        numbers = plain_numbers(verified_result(path.parent))
        numbers["facts"].pop("troubles", None)
        found[str(path.relative_to(folder))] = numbers
    return found


def check_commands(kind: str, folder: Path, count: int, seed: int) -> int:
    """Calls commands on ``count`` damaged copies; returns how many of the calls printed an error.

    A command that trains and that succeeds must have the numbers of one on the undamaged folder.
    """
    make, commands = CASES[kind]
    make(folder)
    whole = folder.with_name("undamaged")
    shutil.copytree(folder, whole)
    for each in commands:
        if each[0] in TRAINS:
            assert call(*(argument.replace("FOLDER", str(whole)) for argument in each))[0] == 0
    expected = trained_numbers(whole) if kind != "finished study" else {}
    names, draws, refused = written_files(folder), random.Random(f"{kind} {seed}"), 0
    for number in range(count):
        copy = folder.with_name(f"damaged-{number}")
        shutil.copytree(folder, copy)
        path = copy / draws.choice(names)
        reshapes = json_kind(path) and draws.random() < 0.5
        if reshapes:
            reshape_file(path, draws)
        else:
            path.write_bytes(changed_bytes(path.read_bytes(), draws))
        command = [argument.replace("FOLDER", str(copy)) for argument in draws.choice(commands)]
        code, printed = call(*command)  # which raises what would be printed with a traceback
        assert code in (0, 1, 2), printed
        assert "Traceback" not in printed
        if code == 0 and command[0] in TRAINS and not reshapes:  # a reshaped file has valid digests
            assert trained_numbers(copy) == expected, path
        if code == 2:
            assert "Error:" in printed
            assert copy.name in printed, printed
            refused += 1
        shutil.rmtree(copy)
    return refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.sampled(2)
def test_command_on_a_damaged_folder_prints_one_message(kind: str, tmp_path: Path, seed: int) -> None:
    check_commands(kind, tmp_path / "whole", 1 if kind in SLOW else 6, seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CASES)
def test_command_on_a_damaged_folder_in_a_long_campaign(
    kind: str, tmp_path: Path, seed: int, given_count: int | None
) -> None:
    count = (given_count or 300) // (10 if kind in SLOW else 1)
    assert check_commands(kind, tmp_path / "whole", count, seed) > count / 10
