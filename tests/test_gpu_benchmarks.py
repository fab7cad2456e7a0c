"""The measurements of `make gpu` run on the CPU with tiny models, and leave what was not measured blank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu"


def run(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON and the page of a dry run."""
    paths = os.pathsep.join(filter(None, (str(FOLDER.parents[1] / "src"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(FOLDER / "run.py"), "--dry-run", "--out", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((tmp_path / "gpu.json").read_text()), (tmp_path / "gpu.md").read_text()


def entries_with_error(results: dict[str, Any]) -> list[str]:
    return [text for part in results["parts"].values() for text in json.dumps(part).split('"error"')[1:]]


@pytest.mark.long
def test_dry_run_measures_every_model_and_contender_without_an_error(tmp_path: Path) -> None:
    results, page = run(tmp_path, "--parts", "waits", "costs", "graphs")
    assert not entries_with_error(results)
    costs, graphs = results["parts"]["costs"]["cases"], results["parts"]["graphs"]["cases"]
    assert len(costs) == 5
    for case in costs.values():
        for name in ("plain", "fork", "balancer"):
            assert case[name]["rounds"] >= 3
            assert case[name]["peak MiB"] is None  # torch counts memory on CUDA alone
    for name, mode in graphs.items():
        assert mode.get("distance of gradients", 0.0) <= 1e-6, name
    assert all(case["waits"] is None for case in results["parts"]["waits"]["cases"].values())
    assert " ms" not in page  # times of a dry run are no results
    assert "commit" in page


@pytest.mark.long
def test_dry_run_runs_the_tests_for_cuda_on_the_cpu(tmp_path: Path) -> None:
    results, page = run(tmp_path, "--parts", "tests")
    assert results["parts"]["tests"]["exit status"] == 0
    assert "2 passed" in page


def imported(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """A module of the folder, without the names that it shares with other folders."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for known in ("models", "contenders", "costs", "waits", "graphs", "cuda_tests", "report", "run"):
        monkeypatch.delitem(sys.modules, known, raising=False)
    module = __import__(name)
    for known in ("models", "contenders", "costs", "waits", "graphs", "cuda_tests", "report", "run"):
        if known in sys.modules:
            monkeypatch.delitem(sys.modules, known)
    return module


def test_part_that_fails_leaves_its_traceback_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = imported(monkeypatch, "run")
    monkeypatch.setitem(module.PARTS, "waits", ("no_such_module", 0.5))
    monkeypatch.setitem(module.PARTS, "graphs", ("stand_in", 0.5))
    (tmp_path / "stand_in.py").write_text(
        "def measure(device, tiny, seconds, save):\n    return {'cases': {}, 'left out': ['one mode']}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert module.main(["--dry-run", "--out", str(tmp_path / "out"), "--parts", "waits", "graphs"]) == 1
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert "no_such_module" in results["parts"]["waits"]["error"]
    assert results["parts"]["graphs"]["left out"] == ["one mode"]
    assert "- one mode" in capsys.readouterr().out


def test_models_have_the_published_numbers_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    models = imported(monkeypatch, "models")
    for kind, millions in (("resnet-50", 23.5), ("vit-b", 85.8), ("bert-base", 109.0)):
        size = models.KINDS[kind].published
        with torch.device("meta"):
            encoder, *_ = models.KINDS[kind].make(1, *size.sizes)
        assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_without_a_gpu_a_run_ends_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = imported(monkeypatch, "run")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert module.main(["--out", str(tmp_path)]) == 1
    assert "--dry-run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
