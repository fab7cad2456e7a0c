"""The questions of ``paretorch interactive``: defaults, wrong answers, the end of the input, and the same by flags."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from command_line import call
from image_folders import write_coco, write_imagenet
from paretorch.cli.interactive.image_sources import find_image_sources, size_options
from paretorch.cli.interactive.menu import EXPECTED, MODELS, Answers, choose_run, command
from paretorch.optim.presets import PRESETS
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from paretorch.workloads.models.encoders import ENCODERS

ROOT = Path(__file__).parents[1]
TINY = ["--images", "8", "--batch-size", "4", "--epochs", "1", "--optimizer", "1", "--yes"]


def answered(answers: str, monkeypatch: pytest.MonkeyPatch, root: Path, **flags: str) -> tuple[Run, str]:
    """The run that the answers describe, and the output."""
    lines = iter(answers.split("\n"))

    def ask(self: Console, prompt: str) -> str:
        self.print(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(Console, "input", ask)
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    run = choose_run(Answers(root=str(root), **flags), console)  # type: ignore[arg-type]
    return run, console.export_text()


def test_interactive_empty_answers_are_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, printed = answered("\n\n\n\n\n\n", monkeypatch, tmp_path)
    assert (run.workload, run.options["encoder"], run.optimizer, run.epochs, run.batch_size) == (
        "scenes",
        "mobilenet_v3_large",
        "AdamW",
        8,
        16,
    )
    for preset in PRESETS:
        assert f"{preset.number}  {preset.name}  {preset}" in printed
        assert f"expected, not measured: {EXPECTED[preset.name]}" in printed
    assert "ImageNet was not found" in printed
    assert ".;" not in printed
    silent, _ = answered("", monkeypatch, tmp_path, yes=True)  # type: ignore[arg-type]
    assert silent == run


def test_interactive_explains_wrong_answers_and_repeats_the_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = "9\nresnet18\nimagenet_coco\n1\n1\nmany\n9000\n8\n0\n9\nadm\nsgd(0.1)\nsgd(lr=-1.0)\n8\n0\n2"
    run, printed = answered(answers, monkeypatch, tmp_path)
    assert (run.options["encoder"], run.batch_size, run.optimizer, run.epochs) == ("resnet18", 8, "MTAdamV2", 2)
    for sentence in (
        "Model: expected a number or a name of 1 mobilenet_v3_large",
        "prints the expected layout",
        "the batch size is at least 2, as batch norm needs; got 1",
        "the batch size is a whole number, got 'many'",
        "the batch size is at most 1,500",
        "an optimizer's number is 1 to 8, got 0",
        "an optimizer's number is 1 to 8, got 9",
        "did you mean 'adam'",
        "options are given by name",
        "Invalid learning rate",
        "the number of epochs is at least 1; got 0",
    ):
        assert sentence in printed, sentence


def test_interactive_trains_the_run_and_prints_its_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, printed = call("interactive", *TINY, "--out", str(out), "--root", str(tmp_path))
    assert code == 0
    assert "No GPU was found" in printed or Result.load(out).run.device != "cpu"
    for what in ("The plot: ", "The page: ", f"The JSON: {out / 'result.json'}", "classification", "epoch 1/1"):
        assert what in printed
    (plot,) = re.findall(r"The plot: (\S+)", printed)
    assert Path(plot).read_text().startswith("<?xml")
    assert (out / "report.html").stat().st_size > 0
    assert json.loads((out / "result.json").read_text())["run"]["optimizer"] == "SGD"


@pytest.mark.parametrize(
    ("answers", "method"),
    [
        ("2\n1\n8\nmtadamv2(lr=0.002)\n3", "Equal()"),
        ("2\n1\n8\n4\n2\n3", "IMTLG()"),
        ("2\n1\n8\n4\nCAGrad(c=0.25)\n3", "CAGrad(c=0.25)"),
        ("2\n1\n8\n4\nMDGA()\nCAGrad(c=open())\nsum\n3", "Equal()"),
    ],
)
def test_interactive_prints_a_command_for_the_same_run(
    answers: str, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, _ = answered(answers, monkeypatch, tmp_path)
    assert (run.method, run.epochs) == (method, 3)
    words = shlex.split(command(run, Answers(root=str(tmp_path))))
    assert words[:3] == ["paretorch", "interactive", "--yes"]
    given = {words[i][2:].replace("-", "_"): words[i + 1] for i in range(3, len(words), 2)}
    given |= {"images": int(given["images"]), "seed": int(given["seed"])}  # type: ignore[dict-item]
    again, _ = answered("", monkeypatch, Path(given.pop("root")), yes=True, **given)  # type: ignore[arg-type]
    assert again == run


def test_interactive_exits_with_1_at_the_end_of_the_input(tmp_path: Path) -> None:
    code, printed = call("interactive", "--root", str(tmp_path), answers="1\n")
    assert code == 1
    assert "The input ended before the last question: nothing was started." in printed
    assert "Traceback" not in printed


def test_interactive_exits_with_130_after_ctrl_c_at_a_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "input", stop)
    code, printed = call("interactive", "--root", str(tmp_path))
    assert code == 130
    assert "Stopped before the last question: nothing was started." in printed
    assert "continues" not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optimizer", "9"], "an optimizer's number is 1 to 8, got 9"),
        (["--batch-size", "1"], "at least 2, as batch norm needs"),
        (["--data", "imagenet_coco"], "ImageNet was not found"),
        (["--model", "resnet"], "expected a number or a name"),
        (["--epochs", "-1"], "at least 1; got -1"),
        (["--images", "1"], "images are at least 2"),
        (["--device", "tpu"], "device is 'cpu'"),
        (["--method", "MDGA()"], "did you mean 'MGDA'"),
        (["--method", "CAGrad()", "--optimizer", "MTAdamV2"], "balances by itself"),
    ],
)
def test_interactive_wrong_flag_is_one_message(flags: list[str], message: str, tmp_path: Path) -> None:
    code, printed = call("interactive", "--yes", "--root", str(tmp_path), *flags)
    assert code == 2
    assert f"Error: {printed.partition('Error: ')[2]}" in printed
    assert message in printed


def test_interactive_uses_existing_image_folders_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    write_coco(tmp_path)
    run, printed = answered("\n\n4\n\n\n1", monkeypatch, tmp_path)
    assert run.workload == "imagenet_coco"
    assert run.surface == "parameters"
    assert f"found: {tmp_path / 'imagenet'}" in printed
    assert run.options["classes"] == 3
    sizes = size_options({task: part.source for task, part in find_image_sources(str(tmp_path)).items() if part.source})
    assert {name: run.options[name] for name in sizes} == sizes
    assert sizes["train"] == 33  # of 36, of which three are the test set
    assert (
        size_options({t: p.source for t, p in find_image_sources(str(tmp_path)).items() if p.source}, images=10)[
            "train"
        ]
        == 10
    )


def test_interactive_describes_every_model_and_optimizer() -> None:
    assert set(MODELS) == set(ENCODERS)
    assert set(EXPECTED) == {preset.name for preset in PRESETS}
    for name in ("Adam", "AdamW", "MTAdamV2"):
        assert "fast" in EXPECTED[name]
    for name in ("AdamW", "SGD+Nesterov"):
        assert "generalises" in EXPECTED[name]


def test_interactive_script_has_the_same_flags(tmp_path: Path) -> None:
    script = ROOT / "train_interactive.py"
    done = subprocess.run(
        [sys.executable, str(script), "--optimizer", "9", "--yes"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "an optimizer's number is 1 to 8, got 9" in done.stderr
    assert len([line for line in script.read_text().splitlines() if line and not line.startswith('"""')]) == 3
