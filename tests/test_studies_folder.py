"""Folders of studies: resuming, refusal of other studies and of damaged files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from paretorch.storage.seals import SEAL, sealed
from paretorch.studies.folder import StudyFolder, locked, open_folder, read_folder, save_tuning
from paretorch.studies.progress import ConsoleProgress
from paretorch.studies.runner import train_study
from paretorch.studies.study import Study, Treatment
from paretorch.studies.tuning.trials import TuningResult
from paretorch.training.loop import train
from paretorch.training.run import Run
from studies_small import BASE, small_study
from training_runs import TINY_FILE


def test_study_folder_resumes_with_more_seeds(tmp_path: Path) -> None:
    first = open_folder(tmp_path, small_study(), "small", 1, resume=True)
    again = open_folder(tmp_path, small_study(), "small", 3, resume=True)
    assert read_folder(tmp_path) == again == StudyFolder(tmp_path, small_study(), "small", (0, 1, 2))
    assert [job.folder for job in again.jobs()][:3] == [job.folder for job in first.jobs()]
    assert len({job.folder for job in again.jobs()}) == 9
    assert first.jobs()[0].folder.name.startswith("single-seed0-")
    assert first.jobs()[0].title == "single (left), seed 0"


def test_study_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path, small_study(), "small", 3, resume=True)
    with pytest.raises(ValueError, match="already contains a study: resume it, or choose another folder"):
        open_folder(tmp_path, small_study(), "small", 3, resume=False)
    with pytest.raises(ValueError, match="expected 'other' at scale 'small' as it is defined now, found 'mine'"):
        open_folder(tmp_path, small_study(name="other"), "small", 3, resume=True)
    with pytest.raises(ValueError, match="found 'mine' at 'small' with other threads"):
        open_folder(tmp_path, small_study(threads=2), "small", 3, resume=True)
    with pytest.raises(ValueError, match="1 to 10,000 seeds"):
        open_folder(tmp_path / "new", small_study(), "small", 0, resume=True)
    with pytest.raises(ValueError, match=r"1 to 10,000 seeds .* got 1,000,000,000,000"):
        open_folder(tmp_path / "new", small_study(), "small", 10**12, resume=True)
    with pytest.raises(ValueError, match="at most 10,000 trials, got 100,000"):
        open_folder(tmp_path / "new", small_study(), "small", 1, resume=True, tune=100_000)
    assert not (tmp_path / "new").exists()


def test_study_folder_with_more_seeds_than_a_report_can_read_is_damaged(tmp_path: Path) -> None:
    open_folder(tmp_path, small_study(), "small", 3, resume=True)
    content = json.loads((tmp_path / "study.json").read_text())
    del content[SEAL]
    for seeds in (0, 20_000):
        values = sealed(content | {"seeds": list(range(seeds))})
        (tmp_path / "study.json").write_text(json.dumps(values))
        with pytest.raises(
            ValueError, match=rf"study\.json is damaged: a study has 1 to 10,000 seeds .* got {seeds:,}"
        ):
            read_folder(tmp_path)


def test_study_folder_with_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no study\.json"):
        read_folder(tmp_path)
    open_folder(tmp_path, small_study(), "small", 3, resume=True)
    file = tmp_path / "study.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"format": "paretorch study 99"}))
    with pytest.raises(ValueError, match="'paretorch study 99', this version reads up to 3: upgrade paretorch"):
        read_folder(tmp_path)
    file.write_text(json.dumps(content | {"format": 7}))
    with pytest.raises(ValueError, match="not a study of paretorch: expected the format 'paretorch study 3', got 7"):
        read_folder(tmp_path)
    file.write_text(json.dumps(content)[:-20])
    with pytest.raises(ValueError, match="not a complete JSON file"):
        read_folder(tmp_path)
    for broken, error in (
        ({key: value for key, value in content.items() if key != "study"}, "it has no 'study'"),
        (content | {"study": content["study"] | {"zzz": 1}}, "it has the unknown name 'zzz'"),
    ):
        file.write_text(json.dumps(sealed({key: value for key, value in broken.items() if key != SEAL})))
        with pytest.raises(ValueError, match=rf"study\.json is damaged: {error}"):
            read_folder(tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a complete JSON file"):
        read_folder(tmp_path)


@pytest.mark.parametrize("change", ["workload", "empty result", "edited result"])
def test_study_folder_checks_finished_runs_before_further_ones(tmp_path: Path, change: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TINY_FILE.read_text())
    run = Run(str(file), {"samples": 24}, batch_size=8)
    study = Study("mine", "Which?", (Treatment("sum", (run,)),), "sum", "sum")
    folder = open_folder(tmp_path / "study", study, "small", 1, resume=True)
    train(run, folder.jobs()[0].folder, progress=None)
    result = folder.jobs()[0].folder / "result.json"
    folder.jobs()[0].check()
    if change == "workload":
        file.write_text(file.read_text().replace("30 *", "31 *"))
        message = r"mine\.py has changed since"
    else:
        result.write_bytes(b"" if change == "empty result" else result.read_bytes().replace(b"0.", b"1.", 1))
        message = r"result\.json"
    with pytest.raises(ValueError, match=message):
        train_study(open_folder(tmp_path / "study", study, "small", 2, resume=True), ConsoleProgress())


def test_study_folder_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    imports = "import sys; from pathlib import Path; from paretorch.studies.folder import locked"
    code = f"{imports}\nwith locked(Path(sys.argv[1])): print(7)"

    def other_process() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)

    with locked(tmp_path):
        assert "another process trains the study in" in other_process().stderr
    assert other_process().stdout == "7\n", "a lock file that remains is no lock"


def test_tuning_of_another_study_is_refused(tmp_path: Path) -> None:
    for name, epochs in (("one", 2), ("other", 3)):
        study = Study("mine", "Which?", (Treatment("sum", (replace(BASE, epochs=epochs),)),), "sum", "sum")
        folder = open_folder(tmp_path / name, study, "smoke", 1, resume=True, tune=2)
        save_tuning(folder, TuningResult(2, 0, ()), folder.study)
        assert read_folder(tmp_path / name).tuning == TuningResult(2, 0, ())
    shutil.copy(tmp_path / "other" / "tuning.json", tmp_path / "one" / "tuning.json")
    with pytest.raises(ValueError, match=r"one/tuning\.json is damaged: it is of another study than .*study\.json"):
        read_folder(tmp_path / "one")
