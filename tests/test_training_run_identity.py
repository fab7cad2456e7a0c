"""Files of another run in a folder: reports, studies and resumed runs refuse them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import studies_synthetic as synthetic
from command_line import call
from paretorch.reports.reading.load import load
from paretorch.reports.report import report
from paretorch.storage import checkpoint_folder
from paretorch.storage.seals import SEAL
from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.folder import StudyFolder, open_folder
from paretorch.studies.job import Job
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import train_study
from paretorch.studies.study import Study, Treatment
from paretorch.training.fronts.run import load_front
from paretorch.training.loop import train
from paretorch.training.record import run_identity
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import check_events, events_digest, read_run, verified_result
from paretorch.training.record.run_record import CHAINED
from paretorch.training.run import Run
from training_runs import TINY_FILE, stop_after

RUN = Run(str(TINY_FILE), method="FAMO()", epochs=2, batch_size=8)
OTHER = dataclasses.replace(RUN, method="UPGrad()")


def swap(one: Path, other: Path) -> None:
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def copied(names: tuple[str, ...]) -> Callable[[Path, Path], None]:
    def copy(one: Path, other: Path) -> None:
        for name in names:
            shutil.copy(other / name, one / name)

    return copy


CHANGES = {
    "folders renamed into each other": swap,
    "result and events copied": copied(("result.json", "events.jsonl")),
    "all files copied": copied(("run.json", "result.json", "events.jsonl")),
    "run copied": copied(("run.json",)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    treatments = tuple(Treatment(run.method, (run,)) for run in (RUN, OTHER))
    study = Study("mine", "Which?", treatments, RUN.method, RUN.method)
    folder = open_folder(tmp_path_factory.mktemp("trained") / "study", study, "small", 1, resume=True)
    for job in folder.jobs():
        train(job.run, job.folder, progress=None)
    return folder


def copy_of(trained: StudyFolder, path: Path) -> tuple[Job, Job]:
    shutil.copytree(trained.path, path)
    one, other = dataclasses.replace(trained, path=path).jobs()
    return one, other


@pytest.mark.parametrize("change", CHANGES)
def test_run_files_are_not_attributed_to_another_treatment(trained: StudyFolder, tmp_path: Path, change: str) -> None:
    path = tmp_path / "study"
    one, other = copy_of(trained, path)
    assert set(load(path).treatments) == {RUN.method, OTHER.method}
    CHANGES[change](one.folder, other.folder)
    with pytest.raises(ValueError, match=r"another run|to the run"):
        load(path)
    code, printed = call("report", str(path))
    assert code == 2
    assert one.folder.name in printed or other.folder.name in printed
    assert not (path / "report.html").exists()
    more = open_folder(path, trained.study, "small", 2, resume=True)
    with pytest.raises(ValueError, match=r"another run|to the run"):
        train_study(more, ConsoleProgress())
    with pytest.raises(ValueError, match=r"another run|to the run"):
        train(one.run, one.folder, progress=None)


def test_run_error_names_the_difference_and_the_cure(trained: StudyFolder, tmp_path: Path) -> None:
    one, other = copy_of(trained, tmp_path / "study")
    swap(one.folder, other.folder)
    with pytest.raises(
        ValueError,
        match=r"its method is 'UPGrad\(\)', expected 'FAMO\(\)'\. Was its folder renamed, or were files copied",
    ):
        load(tmp_path / "study")


def test_runs_are_reported_by_their_values_not_their_folders(trained: StudyFolder, tmp_path: Path) -> None:
    one, other = copy_of(trained, tmp_path / "study")
    (tmp_path / "loose").mkdir()
    one.folder.rename(tmp_path / "loose" / "upgrad")
    other.folder.rename(tmp_path / "loose" / "famo")
    found = load(tmp_path / "loose")
    for run, folder in ((RUN, "upgrad"), (OTHER, "famo")):
        accuracy = Result.load(tmp_path / "loose" / folder).test.metrics["sign"]["accuracy"]
        assert found.treatments[run.method].test[0, 0] == accuracy
    copied(("result.json", "events.jsonl"))(tmp_path / "loose" / "famo", tmp_path / "loose" / "upgrad")
    with pytest.raises(ValueError, match=r"result\.json contains another run"):
        load(tmp_path / "loose")


def test_events_belong_to_the_version_of_the_workload_file(tmp_path: Path) -> None:
    """The runs are equal in every value: only the workload's file differs."""
    file = tmp_path / "mine.py"
    file.write_text(TINY_FILE.read_text())
    run = Run(str(file), epochs=1, batch_size=8)
    train(run, tmp_path / "old", progress=None)
    file.write_text(TINY_FILE.read_text() + "\n# changed\n")
    train(run, tmp_path / "new", progress=None)
    assert verified_result(tmp_path / "new", run) == Result.load(tmp_path / "new")
    copied(("result.json", "events.jsonl"))(tmp_path / "new", tmp_path / "old")
    with pytest.raises(ValueError, match=r"events\.jsonl does not belong to the run in"):
        verified_result(tmp_path / "new", run)
    with pytest.raises(ValueError, match=r"events\.jsonl does not belong to the run in"):
        report(tmp_path / "new")


@pytest.mark.parametrize("name", ["events.jsonl", "checkpoint", "both"])
@pytest.mark.parametrize("kind", ["other method", "other version of the file"])
def test_run_is_not_resumed_from_files_of_another_run(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TINY_FILE.read_text())
    run = dataclasses.replace(RUN, workload=str(file), epochs=3)
    other = dataclasses.replace(run, method="UPGrad()") if kind == "other method" else run
    for each, folder in ((other, tmp_path / "other"), (run, tmp_path / "mine")):
        with pytest.raises(KeyboardInterrupt):
            train(each, folder, progress=stop_after(1, of=3))
        if kind != "other method" and folder.name == "other":
            file.write_text(TINY_FILE.read_text() + "\n# changed\n")
    for part in ("events.jsonl", "checkpoint") if name == "both" else (name,):
        target = tmp_path / "mine" / part
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(tmp_path / "other" / part, target)
        else:
            shutil.copy(tmp_path / "other" / part, target)
    with pytest.raises(ValueError, match=r"does not belong to the run in|belongs to another run"):
        train(run, tmp_path / "mine", progress=None)


def test_run_file_that_was_edited_is_refused(trained: StudyFolder, tmp_path: Path) -> None:
    one, _ = copy_of(trained, tmp_path / "study")
    path = one.folder / "run.json"
    path.write_text(path.read_text().replace("FAMO()", "UPGrad()"))
    with pytest.raises(ValueError, match=r"run\.json differs from what the run wrote: its digest differs"):
        read_run(one.folder)
    with pytest.raises(ValueError, match=r"run\.json differs from what the run wrote"):
        load(tmp_path / "study")


def of_an_earlier_version(folder: Path) -> None:
    """Takes the digests out, as runs before them have none."""
    values = json.loads((folder / "run.json").read_text())
    del values["digest"], values[SEAL]
    (folder / "run.json").write_text(json.dumps(values | {"format": run_identity.UNSEALED}))
    result = Result.load(folder)
    events_of_an_earlier_version(folder)
    result.save(folder)


def events_of_an_earlier_version(folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert len({event.pop("run") for event in events if event["event"] == "epoch"}) == 1
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_runs_of_earlier_versions_are_checked_by_their_values(trained: StudyFolder, tmp_path: Path) -> None:
    one, other = copy_of(trained, tmp_path / "study")
    expected = load(tmp_path / "study").treatments
    for job in (one, other):
        of_an_earlier_version(job.folder)
        assert events_digest(job.folder) is None
        assert train(job.run, job.folder, progress=None) == Result.load(job.folder)
    found = load(tmp_path / "study").treatments
    assert {label: t.test.tolist() for label, t in found.items()} == {k: t.test.tolist() for k, t in expected.items()}
    copied(("result.json", "events.jsonl"))(one.folder, other.folder)
    with pytest.raises(ValueError, match=r"result\.json contains another run"):
        load(tmp_path / "study")


def test_unfinished_run_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    whole = train(dataclasses.replace(RUN, epochs=3), tmp_path / "whole", progress=None)
    run, folder = dataclasses.replace(RUN, epochs=3), tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, progress=stop_after(2, of=3))
    values = json.loads((folder / "run.json").read_text())
    del values["digest"], values[CHAINED], values[SEAL]
    (folder / "run.json").write_text(json.dumps(values | {"format": run_identity.UNSEALED}))
    events_of_an_earlier_version(folder)
    for state in folder.glob("checkpoint/epoch-*/state.json"):
        content = json.loads(state.read_text())
        del content["digest"], content[SEAL]
        state.write_text(json.dumps(content | {"format": checkpoint_folder.UNSEALED}))
    assert train(run, folder, progress=None).test == whole.test


def test_result_without_run_file_belongs_to_the_run_it_names(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=3)
    good, bad = (next(job for job in folder.jobs() if job.label == label) for label in ("good", "bad"))
    swap(good.folder, bad.folder)
    with pytest.raises(ValueError, match="contains another run: its method"):
        load(folder.path)


def test_failure_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = synthetic.finished(tmp_path / "study", seeds=3, leave={"good": 2})
    good = next(job for job in folder.jobs() if job.label == "good" and job.run.seed == 2)
    bad = next(job for job in folder.jobs() if job.label == "bad")
    for run, message in ((good.run, None), (bad.run, r"failed\.json contains another run")):
        write_failure(good.folder, run, FailureRecord("ValueError: nan", "here"))
        if message is None:
            assert [m.error for m in load(folder.path).treatments["good"].missing] == ["ValueError: nan"]
        else:
            with pytest.raises(ValueError, match=message):
                load(folder.path)


def test_front_of_another_run_is_refused(tmp_path: Path) -> None:
    workload = "synthetic(samples=64, hidden=8)"
    for seed in ("0", "1"):
        command = ["front", workload, "--models", "2", "--epochs", "1", "--batch-size", "32", "--seed", seed]
        code, printed = call(*command, "--out", str(tmp_path / seed))
        assert code == 0, printed
    assert len(load_front(tmp_path / "0")) == 2
    for path in (tmp_path / "1").glob("*"):
        if path.name.startswith(("front.json", "model-")):
            shutil.copy(path, tmp_path / "0" / path.name)
    with pytest.raises(ValueError, match=r"front\.json does not belong to the run in"):
        load_front(tmp_path / "0")
    code, printed = call("pick", str(tmp_path / "0"), "0.5,0.5")
    assert code == 2
    assert "it was copied from another run" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("seed"), "its seed is None, expected 0"),
        (lambda values: values.update(epochs=[2]), r"its epochs is \[2\], expected 2"),
        (lambda values: values.update(epochs=3), "with 3 epochs, which cannot be reduced to 2"),
        (lambda values: values.update(other=None), "its other is None, expected None"),
    ],
)
def test_run_of_another_shape_is_refused_with_the_difference(
    change: Callable[[dict[str, object]], object], message: str, tmp_path: Path
) -> None:
    values = run_identity.plain_values(RUN)
    change(values)
    with pytest.raises(ValueError, match=message):
        run_identity.check_run(tmp_path / "failed.json", values, RUN)


def test_run_file_has_a_digest_of_all_its_values(tmp_path: Path) -> None:
    train(dataclasses.replace(RUN, epochs=1), tmp_path, progress=None)
    path = tmp_path / "run.json"
    content = path.read_text()
    for name in ("versions", "machine", "events are chained", "key"):
        path.write_text(content.replace(f'"{name}"', '"other"'))
        with pytest.raises(ValueError, match=r"run\.json differs from what the run wrote"):
            read_run(tmp_path)
    path.write_text(content.replace('"format": 3', '"format": 9'))
    with pytest.raises(ValueError, match=r"run\.json is damaged: its format is 9, this version reads 1 to 3"):
        read_run(tmp_path)


def test_missing_events_are_called_missing_and_not_those_of_another_run(tmp_path: Path) -> None:
    train(RUN, tmp_path, progress=None)
    (tmp_path / "events.jsonl").unlink()
    with pytest.raises(ValueError, match=r"events\.jsonl is missing: .*Restore the file, or remove the folder"):
        Result.load(tmp_path)
    with pytest.raises(ValueError, match=r"events\.jsonl is missing"):
        check_events(tmp_path, read_run(tmp_path))  # as of a result that was written without events


def test_missing_events_of_an_unfinished_run_are_called_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, progress=stop_after(1, of=2))
    (tmp_path / "events.jsonl").unlink()
    with pytest.raises(ValueError, match=r"got none: it was removed or emptied"):
        train(RUN, tmp_path, progress=None)
