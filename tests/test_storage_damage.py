"""Damage in the files of what is unfinished: a clear error or the result of an undamaged folder, and never another one."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from damaged_files import changed_bytes, flipped
from paretorch.studies.folder import open_folder, read_folder
from paretorch.training.loop import train
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.run import Run
from studies_small import small_study
from training_runs import TINY, check_equal_results, stop_after

RUN = Run(TINY, method="GradNorm()", optimizer="Adam", optimizer_options={"lr": 0.02}, epochs=4, batch_size=20, seed=5)
FRONT = Run(TINY, front="EPO()", optimizer="Adam", optimizer_options={"lr": 0.02}, epochs=3, batch_size=20, seed=2)


def interrupted(run: Run, folder: Path, after: int) -> Path:
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, progress=stop_after(after, of=run.epochs))
    return folder


def damaged(folder: Path, times: int, seed: int) -> Iterator[tuple[Path, Path]]:
    """Copies of a folder in which one file has changed, and that file."""
    draws = random.Random(seed)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for number in range(times):
        copy = folder.with_name(f"damaged-{number}")
        shutil.copytree(folder, copy)
        path = copy / draws.choice(names)
        path.write_bytes(changed_bytes(path.read_bytes(), draws))
        yield copy, path
        shutil.rmtree(copy)


def check_damage(run: Run, tmp_path: Path, times: int, seed: int) -> int:
    """Resumes damaged copies; returns how often the damage was noticed."""
    whole = train(run, tmp_path / "whole", progress=None)
    started = interrupted(run, tmp_path / "started", after=2)
    noticed = 0
    for copy, path in damaged(started, times, seed):
        try:
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always", TrainingWarning)
                result = train(run, copy, progress=None)
        except (ValueError, OSError) as error:
            noticed, refusal = noticed + 1, str(error)
        else:
            noticed, refusal = noticed + any(path.name in str(each.message) for each in given), str(copy)
            check_equal_results(result, whole)
        assert copy.name in refusal, (path, refusal)
    return noticed


@pytest.mark.parametrize("run", [RUN, FRONT], ids=["run", "front"])
def test_damaged_training_is_refused_or_gives_the_same_result(run: Run, tmp_path: Path) -> None:
    assert check_damage(run, tmp_path, times=12, seed=1) >= 3


@pytest.mark.long
@pytest.mark.parametrize("run", [RUN, FRONT], ids=["run", "front"])
def test_damaged_training_in_a_long_campaign(run: Run, tmp_path: Path) -> None:
    assert check_damage(run, tmp_path, times=400, seed=2) >= 100


def test_damaged_newest_checkpoint_falls_back_to_the_previous_one(tmp_path: Path) -> None:
    whole = train(RUN, tmp_path / "whole", progress=None)
    started = interrupted(RUN, tmp_path / "started", after=3)
    assert sorted(path.name for path in (started / "checkpoint").iterdir()) == ["epoch-2", "epoch-3"]
    path = started / "checkpoint" / "epoch-3" / "optimizer.safetensors"
    path.write_bytes(flipped(path.read_bytes(), random.Random(0)))
    with pytest.warns(TrainingWarning, match=r"epoch-3/optimizer\.safetensors is damaged: .* continues from epoch-2"):
        result = train(RUN, started, progress=None)
    assert any("continues from epoch-2" in text for text in result.facts["troubles"])
    check_equal_results(result, whole)


def test_events_of_another_seed_are_refused(tmp_path: Path) -> None:
    started = interrupted(RUN, tmp_path / "one", after=2)
    other = interrupted(replace(RUN, seed=6), tmp_path / "other", after=2)
    shutil.copy(other / "events.jsonl", started / "events.jsonl")
    with pytest.raises(ValueError, match=r"events\.jsonl does not belong to the run"):
        train(RUN, started, progress=None)


def test_damaged_study_file_is_refused_wherever_a_bit_changes(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, small_study(), "small", 3, resume=True)
    path, draws = tmp_path / "study.json", random.Random(3)
    content = path.read_bytes()
    for _ in range(200):
        path.write_bytes(flipped(content, draws))
        try:
            found, refusal = read_folder(tmp_path), str(path)
        except ValueError as error:
            found, refusal = folder, str(error)
        assert found == folder
        assert "study.json" in refusal
