"""Code that a received folder names: it is executed only if the user has named it or a file with its content."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import call
from paretorch.studies.folder import open_folder, read_folder
from paretorch.studies.lookup import find_study
from paretorch.training.fronts.run import load_front, workload_of
from paretorch.training.names import trusted_files
from paretorch.training.names.workloads import find_workload
from paretorch.training.record.run_identity import run_digest, write_run
from studies_synthetic import study

SMALL = ["--models", "2", "--epochs", "1", "--batch-size", "32"]
HARMLESS = """\
from paretorch.workloads.synthetic import Synthetic
workload = Synthetic(samples=64, hidden=8)
"""


def running(mark: Path) -> str:
    """A workload file that leaves a mark where it is executed."""
    return f"open({str(mark)!r}, 'w').close()\n{HARMLESS}"


@pytest.fixture(autouse=True)
def _nothing_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    trusted_files._named.clear()


def forget() -> None:
    trusted_files._named.clear()
    trusted_files.store().unlink()


def train_front_folder(folder: Path, workload: str = "synthetic(samples=64, hidden=8)") -> Path:
    code, printed = call("front", workload, *SMALL, "--out", str(folder))
    assert code == 0, printed
    return folder


def naming(folder: Path, workload: str, source: str | None = None) -> Path:
    """The folder with another workload in its ``run.json``, with the digest that belongs to it."""
    values: dict[str, Any] = json.loads((folder / "run.json").read_text())
    values["run"] |= {"workload": workload, "options": {}}
    old, values["digest"] = values["digest"], run_digest(values["run"], values["source"])
    write_run(folder, values)
    about = json.loads((folder / "front.json").read_text())
    assert about["facts"]["run"] == old
    return folder


@pytest.mark.parametrize("where", ["in the folder", "elsewhere"])
def test_front_does_not_execute_the_file_that_its_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, mark = train_front_folder(tmp_path / "shared"), tmp_path / "it ran"
    evil = folder / "evil.py" if where == "in the folder" else tmp_path / "evil.py"
    evil.write_text(running(mark))
    naming(folder, os.path.relpath(evil))
    for arguments in (["0.5,0.5"], ["--model", "0"], ["0.5,0.5", "--export", "model.onnx"]):
        code, printed = call("pick", "shared", *arguments)
        assert code == 2
        assert "so it is not executed" in printed
        assert "--workload FILE" in printed
    with pytest.raises(ValueError, match="so it is not executed"):
        load_front("shared")
    with pytest.raises(ValueError, match="so it is not executed"):
        workload_of(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["evil", "shared.evil", "this", "antigravity"])
def test_front_imports_no_module_that_its_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder, mark = train_front_folder(tmp_path / "shared"), tmp_path / "it ran"
    for place in (tmp_path / "evil.py", folder / "evil.py", folder / "__init__.py"):
        place.write_text(running(mark))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    naming(folder, name)
    code, printed = call("pick", "shared", "0.5,0.5")
    assert code == 2
    assert f"the module {name!r}, which is not imported only because a file names it" in printed
    assert not mark.exists()
    assert name not in sys.modules


def test_file_that_the_user_names_is_executed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(HARMLESS)
    folder = train_front_folder(tmp_path / "front", str(mine))
    forget()  # as on another machine
    assert call("pick", str(folder), "0.5,0.5")[0] == 2
    code, printed = call("pick", str(folder), "0.5,0.5", "--workload", str(mine))
    assert code == 0, printed
    assert len(load_front(folder)) == 2, "what was named once is trusted"


def test_trusted_file_is_executed_until_its_content_changes(tmp_path: Path) -> None:
    mine, mark = tmp_path / "mine.py", tmp_path / "it ran"
    mine.write_text(HARMLESS)
    folder = train_front_folder(tmp_path / "front", str(mine))
    assert call("pick", str(folder), "0.5,0.5")[0] == 0
    mine.write_text(running(mark))
    with pytest.raises(ValueError, match="with whose content you have not trained before"):
        load_front(folder)
    assert not mark.exists()
    mine.unlink()
    with pytest.raises(FileNotFoundError, match=r"mine\.py does not exist, which .*run\.json names"):
        load_front(folder)


def test_conditional_front_is_loaded_with_a_named_workload(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(HARMLESS)
    code, printed = call("front", str(mine), "--algorithm", "COSMOS()", *SMALL, "--out", str(tmp_path / "front"))
    assert code == 0, printed
    forget()
    assert len(load_front(tmp_path / "front", str(mine))) == 2


def test_named_workload_has_the_options_of_the_run(tmp_path: Path) -> None:
    folder = train_front_folder(tmp_path / "front", "synthetic(samples=64, hidden=5)")
    assert workload_of(folder, "synthetic").hidden == 5  # type: ignore[attr-defined]
    assert workload_of(folder, "synthetic(hidden=7)").hidden == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["workload", "study"])
def test_compiled_file_is_not_executed_in_place_of_the_source(tmp_path: Path, kind: str) -> None:
    source, mark, evil = tmp_path / "mine.py", tmp_path / "it ran", tmp_path / "evil.py"
    text = HARMLESS + "from studies_synthetic import study\n"
    planted = f"open({str(mark)!r}, 'w').close()\n" + text
    source.write_text(text + "#" * (len(planted) - len(text) - 1) + "\n")
    evil.write_text(planted)
    os.utime(evil, (1_000_000_000, 1_000_000_000))
    os.utime(source, (1_000_000_000, 1_000_000_000))
    compiled = tmp_path / "__pycache__" / f"mine.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(evil), str(compiled), dfile=str(source), doraise=True)
    if kind == "workload":
        assert find_workload(str(source), {}).tasks
    else:
        assert find_study(str(source), "smoke").name == "synthetic"
    assert not mark.exists()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mine"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert mark.exists(), "the compiled file would be taken by an import"


def test_trusted_digests_are_stored_in_the_users_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    trusted_files.trust(Path("a.py"), b"pass")
    assert trusted_files.store() == tmp_path / "home" / ".config" / "paretorch" / trusted_files.FILE
    assert trusted_files.is_trusted(b"pass")
    assert not trusted_files.is_trusted(b"pass\n")
    trusted_files._named.clear()
    assert trusted_files.is_trusted(b"pass"), "by another process, too"
    before = trusted_files.store().read_bytes()
    trusted_files.trust(Path("a.py"), b"pass")
    assert trusted_files.store().read_bytes() == before
    trusted_files.store().unlink()
    trusted_files.store().symlink_to(tmp_path / "elsewhere")
    trusted_files._named.clear()
    trusted_files.trust(Path("a.py"), b"pass")
    assert not (tmp_path / "elsewhere").exists()
    assert trusted_files.is_trusted(b"pass"), "in this process"


@pytest.mark.parametrize(
    "run", [{}, {"front": "mt2o"}, {"front": 1, "workload": "digits", "options": {}, "method": ""}]
)
def test_run_file_without_values_is_damaged(tmp_path: Path, run: dict[str, Any]) -> None:
    train_front_folder(tmp_path / "shared")
    (tmp_path / "shared" / "run.json").write_text(json.dumps({"run": run}))
    code, printed = call("pick", str(tmp_path / "shared"), "0.5,0.5")
    assert code == 2
    assert "run.json is damaged: run" in printed


def test_tuning_file_with_another_workload_is_refused(tmp_path: Path) -> None:
    study_before = study()
    open_folder(tmp_path, study_before, "smoke", 1, resume=True)
    study_after = json.loads(json.dumps(study_before.to_json()))
    for treatment in study_after["treatments"]:
        for run in treatment["runs"]:
            run["workload"] = "shared/evil.py"
    made = {"format": "paretorch study 2", "tuning": {"trials": 1, "seed": 1, "searches": []}, "study": study_after}
    (tmp_path / "tuning.json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match=r"tuning\.json is damaged: expected the treatment"):
        read_folder(tmp_path)
