"""The commands: exit codes, output, files."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from command_line import call
from interrupts import restore_interrupts
from paretorch.cli.listing import LISTS
from paretorch.training import run_training
from paretorch.training.record.result import Result
from paretorch.workloads.streams import one_pass, training_batches
from training_runs import TINY

ROOT = Path(__file__).parents[1]
QUICK = ["--epochs", "1", "--batch-size", "8"]


def test_command_without_arguments_prints_examples() -> None:
    code, printed = call()
    assert code == 0
    for command in ("paretorch train digits", "paretorch study quickstart", "paretorch list methods", "--help"):
        assert command in printed


@pytest.mark.parametrize(
    "verb",
    [
        "train",
        "study",
        "weights",
        "diagnose",
        "front",
        "pick",
        "export",
        "interactive",
        "report",
        "list",
        "data list",
        "data check",
        "data pack",
    ],
)
def test_help_has_an_example(verb: str) -> None:
    code, printed = call(*verb.split(), "--help")
    assert code == 0
    assert f"Example: paretorch {verb} " in printed


@pytest.mark.parametrize("verb", ["train", "front"])
def test_help_of_the_schedule_names_every_form(verb: str) -> None:
    assert "constant, cosine, 'step(0.5, 100)'" in call(verb, "--help")[1]


def test_help_of_data_check_documents_its_exit_code() -> None:
    assert "exit code is 1 if there are problems" in call("data", "check", "--help")[1]


# flags are part of the public interface: a new or renamed flag changes this list
FLAGS = {
    "train": "method surface tasks every scale heads optimizer lr epochs batch-size seed device precision "
    "deterministic clip schedule warmup keep stationarity track out",
    "study": "scale seeds out jobs resume tune track together launch address cpus-per-run gpus-per-run storage "
    "optimizers methods reference baselines classes loss-weights root encoder "
    "encoder-weights device epochs batch-size optimizer lr surface schedule searches trials",
    "diagnose": "tasks batches warmup seconds optimizer batch-size seed device out",
    "front": "algorithm models preferences margin reference starts execution optimizer epochs batch-size seed device "
    "deterministic schedule warmup out",
    "weights": "search method share members rounds tasks optimizer epochs batch-size seed device deterministic clip schedule "
    "warmup out",
    "pick": "model export fixed-batch workload",
    "export": "fixed-batch workload",
    "interactive": "model data batch-size optimizer method epochs images root seed device out yes",
    "report": "figures reference out",
    "list": "",
    "data list": "",
    "data check": "root images workers",
    "data pack": "root size out workers",
}


@pytest.mark.parametrize("verb", FLAGS)
def test_help_has_exactly_the_listed_flags(verb: str) -> None:
    _, printed = call(*verb.split(), "--help")
    assert {flag for flag in re.findall(r" --([a-z][a-z-]*)", printed) if not flag.startswith("no-")} == {
        *FLAGS[verb].split(),
        "help",
    }


def test_train_of_a_finished_run_prints_the_same_table(tmp_path: Path) -> None:
    command = ["train", TINY, "--method", "MGDA()", "--out", str(tmp_path), *QUICK]
    code, printed = call(*command)
    assert code == 0
    assert "epoch 1/1" in printed
    assert "accuracy (higher is better)" in printed
    assert f"The record is in {tmp_path}" in printed
    again, repeated = call(*command)
    assert again == 0
    assert "epoch 1/1" not in repeated
    table, _, note = repeated.partition("This run was finished before")
    assert note
    assert table.strip() in printed


def test_train_writes_every_flag_into_the_run(tmp_path: Path) -> None:
    code, _ = call(
        *(
            "train",
            f"{TINY}(samples=40)",
            "--method",
            "CAGrad(c=0.25)",
            "--surface",
            "parameters",
            "--tasks",
            "size,sign",
        ),
        *("--every", "2", "--scale", "paper", "--heads", "weighted", "--optimizer", "SGD(lr=0.001, momentum=0.9)"),
        *("--epochs", "2", "--batch-size", "10", "--seed", "3", "--device", "cpu", "--precision", "bfloat16"),
        *("--deterministic", "--out", str(tmp_path)),
    )
    assert code == 0
    assert json.loads((tmp_path / "run.json").read_text())["run"] == {
        "workload": TINY,
        "options": {"samples": 40},
        "tasks": ["size", "sign"],
        "method": "CAGrad(c=0.25)",
        "surface": "parameters",
        "door": {"every": 2, "scale": "paper", "heads": "weighted"},
        "optimizer": "SGD",
        "optimizer_options": {"lr": 0.001, "momentum": 0.9},
        "epochs": 2,
        "batch_size": 10,
        "seed": 3,
        "device": "cpu",
        "precision": "bfloat16",
        "deterministic": True,
    }


def test_train_names_the_folder_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", TINY, *QUICK)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    result = Result.load(folder)
    assert folder.name == f"training_workload-{result.run.key}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digit"], "Error: unknown workload 'digit': did you mean 'digits'"),
        (["train", TINY, "--method", "MDGA()"], "Error: unknown method 'MDGA': did you mean 'MGDA'"),
        (["train", TINY, "--method", "CAGrad(c=open('x'))"], "Error: unknown method 'open'"),
        (["train", TINY, "--optimizer", "SGD(lr=open('x'))"], "Error: .* expected plain values, got open"),
        (["train", f"{TINY}(width=[1 for _ in ()])"], "Error: cannot read .* is not a literal"),
        (["train", TINY, "--optimizer", "Adm(lr=1)"], "did you mean 'Adam'"),
        (["train", TINY, "--optimizer", "SGD(0.1)"], "options are given by name"),
        (["train", TINY, "--optimizer", "SGD(lr=-1.0)"], "Invalid learning rate"),
        (["train", TINY, "--epochs", "0"], "Error: epochs is at least 1, got 0"),
        (["train", TINY, "--surface", "feature"], "'features'"),
        (["train", TINY, "--tasks", "sing"], "did you mean 'sign'"),
        (["train", "nowhere.py"], "Error: nowhere.py does not exist"),
        (["list", "method"], "Error: unknown list 'method': did you mean 'methods'"),
        (["trian"], "'train'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_error_that_the_user_can_correct_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    extra = ["--out", str(tmp_path / "run")] if arguments[0] == "train" else []
    code, printed = call(*arguments, *extra)
    assert code == 2
    assert re.search(message, printed)
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


def test_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, printed = call("train", TINY, "--out", str(tmp_path), *QUICK)
    assert code == 2
    assert "Error: no space left to write" in printed
    assert "Errno" not in printed


def test_ctrl_c_exits_with_130_and_the_same_command_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_training, "step_numbers", stop)
    code, printed = call("train", TINY, "--out", str(tmp_path), *QUICK)
    assert code == 130
    assert "Stopped. The same command continues" in printed
    monkeypatch.undo()
    assert call("train", TINY, "--out", str(tmp_path), *QUICK)[0] == 0


def test_ctrl_c_of_a_process_exits_with_130_and_the_same_command_resumes(tmp_path: Path) -> None:
    arguments = [TINY, "--method", "MGDA()", "--epochs", "60", "--batch-size", "8", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "paretorch.cli", "train", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore_interrupts
    )
    while process.poll() is None and not list(tmp_path.glob("checkpoint/epoch-*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert process.returncode == 130
    assert "Stopped. The same command continues" in errors
    assert "Traceback" not in errors + printed
    assert not (tmp_path / "result.json").exists()
    checkpoint = max(int(path.name.removeprefix("epoch-")) for path in tmp_path.glob("checkpoint/epoch-*"))
    code, printed = call("train", *arguments)
    assert code == 0
    assert f"resumed after epoch {checkpoint}" in printed


def test_error_of_a_users_code_keeps_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(Path(TINY).read_text().replace("        losses = {}\n", "        raise ValueError('mine')\n"))
    with pytest.raises(ValueError, match=r"^mine$"):
        call("train", str(path), "--out", str(tmp_path / "run"), *QUICK)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", ["CAGrad(c=0.5", "MGDA(", "FAMO(", "Equal() The sum of the losses"]),
        ("optimizers", ["SGD", "AdamW"]),
        ("algorithms", ["MT2O(", "EPO("]),
        ("workloads", ["digits Two overlaid real digits"]),
        ("studies", ["quickstart Quickstart: "]),
    ],
)
def test_list_prints_names(what: str, names: list[str]) -> None:
    code, printed = call("list", what)
    assert code == 0
    for name in names:
        assert name in printed


@pytest.mark.parametrize("what", LISTS)
def test_list_has_plain_text_in_whole_sentences(what: str) -> None:
    rows = LISTS[what]()
    assert rows
    for name, about in rows:
        assert not re.search(r":\w+:|`|<factory>|<.* object|<class", f"{name} {about}"), name
        if not re.match(r"\d ", name):  # a preset is described by its constructor
            assert re.match(r"[A-Z\d].*[.?!]$", about), (name, about)


def test_train_trains_the_workload_of_the_documentation(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "your_own_workload.md").read_text()
    code, stream = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_workload.py").write_text(code)
    (console,) = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = console.strip().splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines):
        arguments = re.findall(r"'([^']*)'|(\S+)", line.replace("my_workload.py", f"{tmp_path}/my_workload.py"))
        words = [quoted or plain for quoted, plain in arguments]
        assert words[0] == "paretorch"
        code_, printed = call(*words[1:], "--out", str(tmp_path / str(number)), "--epochs", "2")
        assert code_ == 0, printed
        assert "accuracy" in printed
    names: dict[str, Any] = {}
    exec(stream, names)
    squares = names["Squares"]()
    assert [batch.size for batch in one_pass(squares, 300, order=None)] == [300, 300, 300, 100]
    assert [len(batch.inputs) for (batch,) in training_batches((squares,), 300, seed=0, epoch=0)] == [300, 300, 300]
    assert [batch.size for batch in one_pass(squares, 2000, order=1)] == [1000]


def test_command_line_does_not_import_torch() -> None:
    code = "import sys, paretorch.cli; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_missing_package_is_named_with_the_command_that_installs_it() -> None:
    code = "import sys; sys.modules['typer'] = None; import paretorch.cli"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "typer is not installed: pip install 'paretorch[studies]'" in result.stderr


@pytest.mark.parametrize("module", ["paretorch", "paretorch.cli"])
@pytest.mark.sampled(2)
def test_package_is_a_command_of_python(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module]
    listed = subprocess.run([*command, "list", "methods"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "UPGrad" in listed.stdout
    wrong = subprocess.run([*command, "no-such"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_names_of_files_are_printed_as_they_are() -> None:
    code, printed = call("report", "runs/:warning:[bold]")
    assert code == 2
    assert "runs/:warning:[bold]" in printed


def of_process(arguments: list[str], output: Any = subprocess.PIPE, **more: str) -> tuple[int, bytes, bytes]:
    """The exit code and both streams of a command in a process of its own, whose standard input is closed."""
    done = subprocess.run(
        [sys.executable, "-m", "paretorch.cli", *arguments],
        preexec_fn=lambda: os.close(0),
        stdout=output,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", **more},
        check=False,
    )
    return done.returncode, done.stdout or b"", done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "ascii:surrogateescape"])
@pytest.mark.sampled(4)
def test_list_is_printed_in_every_encoding(encoding: str) -> None:
    code, printed, errors = of_process(["list", "algorithms"], PYTHONIOENCODING=encoding, COLUMNS="60")
    assert (code, errors) == (0, b"")
    text = printed.decode(encoding.partition(":")[0])
    assert ("?" in text) == ("ascii" in encoding) or encoding == "cp1252"
    assert encoding != "utf-8" or not printed.isascii()


def test_output_that_cannot_encode_a_character_replaces_it() -> None:
    drawn = "print('\\u0394 \\U0001f600')"
    program = f"import sys; from paretorch import cli; cli.app = lambda: {drawn}; cli.main()"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        check=True,
    )
    assert found.stdout.split() == [b"?", b"?"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list", "methods"]], ids=str)
@pytest.mark.sampled(3)
def test_output_that_cannot_be_written_is_one_message(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        code, _, errors = of_process(arguments, full)
    assert code == 2
    assert b"No space left on device" in errors
    assert b"Traceback" not in errors


def test_questions_without_an_input_end() -> None:
    code, _, errors = of_process(["interactive"])
    assert code == 1
    assert b"The input ended before the last question" in errors
    assert b"Traceback" not in errors


@pytest.mark.long
def test_report_of_a_folder_without_a_unicode_name(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run-\xff"))
    code, _, errors = of_process(["train", TINY, *QUICK, "--out", str(folder)], PYTHONIOENCODING="utf-8:strict")
    assert (code, errors) == (0, b"")
    code, _, errors = of_process(["report", str(folder)], PYTHONIOENCODING="utf-8:strict")
    assert (code, errors) == (0, b"")
    assert "run-\\udcff" in (folder / "report.html").read_text(encoding="utf-8")


def test_want_of_memory_and_a_reader_that_died_are_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, cure in (
        (
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried 1 bytes",
            "use less data",
        ),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes", "use less data"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "workers=0 shows its error"),
    ):

        def fails(*_: object, text: str = text, **__: object) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr("paretorch.training.loop.train", fails)
        code, printed = call("train", TINY, *QUICK, "--out", str(tmp_path / "run"))
        assert code == 2
        assert "Error: " in printed
        assert cure in printed


@pytest.mark.parametrize("kind", ["file", "fifo", "file below"])
@pytest.mark.parametrize("command", ["train", "front", "weights", "diagnose", "study", "pick", "report"])
def test_path_that_is_no_folder_is_one_message_with_a_cure(command: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "path"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("mine")
    out = str(path / "below" if kind == "file below" else path)
    arguments = {
        "study": ["quickstart", "--scale", "smoke", "--out", out],
        "pick": [out, "0.5,0.5"],
        "report": [out],
        "weights": [TINY, "--epochs", "12", "--batch-size", "6", "--out", out],
        "front": ["synthetic(samples=64, hidden=8)", "--models", "2", "--epochs", "1", "--out", out],
    }
    code, printed = call(command, *arguments.get(command, [TINY, "--out", out]))
    assert code == 2
    assert "Errno" not in printed
    if command != "report":
        assert f"Error: {path} is no folder, where a folder is expected: move it away" in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("events.jsonl", "events.jsonl is a folder, where a file is expected: move it away"),
        ("x" * 300, "is a longer name than the file system allows: give a shorter one"),
    ],
)
def test_path_that_cannot_be_written_is_one_message_with_a_cure(name: str, message: str, tmp_path: Path) -> None:
    out = tmp_path / name
    if name == "events.jsonl":
        assert call("train", TINY, "--out", str(tmp_path), *QUICK)[0] == 0
        for each in ("events.jsonl", "result.json"):
            (tmp_path / each).unlink()
        shutil.rmtree(tmp_path / "checkpoint")
        out.mkdir()
        out = tmp_path
    code, printed = call("train", TINY, "--out", str(out), *QUICK)
    assert code == 2
    assert message in printed
    assert "Errno" not in printed


@pytest.mark.parametrize("place", ["checkpoint", "checkpoint/epoch-1"])
def test_file_in_place_of_a_checkpoint_is_one_message_with_a_cure(place: str, tmp_path: Path) -> None:
    assert call("train", TINY, "--out", str(tmp_path), *QUICK)[0] == 0
    for each in ("events.jsonl", "result.json"):
        (tmp_path / each).unlink()
    shutil.rmtree(tmp_path / "checkpoint")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    code, printed = call("train", TINY, "--out", str(tmp_path), *QUICK)
    assert code == 2
    assert "Errno" not in printed


def test_report_into_a_file_is_one_message_with_a_cure(tmp_path: Path) -> None:
    assert call("train", TINY, "--out", str(tmp_path), *QUICK)[0] == 0
    (tmp_path / "report").write_text("mine")
    code, printed = call("report", str(tmp_path))
    assert code == 2
    assert f"{tmp_path / 'report'} is no folder, where a folder is expected: move it away" in printed


def test_diagnosis_that_cannot_be_written_is_refused_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr("paretorch.diagnosis.workload.diagnose_workload", measured)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "diagnosis.json").mkdir(parents=True)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "diagnosis.html").write_text("mine")
    for out, message in {
        "file": "file is no folder",
        "file/below": "file is no folder",
        "folder": "diagnosis.json is a folder, where a file is expected",
        "page": "is not a page that paretorch wrote",
        "x" * 300: "is a longer name than the file system allows",
    }.items():
        code, printed = call("diagnose", TINY, "--out", str(tmp_path / out))
        assert code == 2
        assert message in printed
