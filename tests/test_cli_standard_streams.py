"""Commands that are started with closed standard streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paretorch.training.record.result import Result
from training_runs import TINY_FILE

NOISE = 'losses = {}; import os; os.write(1, b"noise"); os.write(2, b"noise")'


def run_closed(closed: str, arguments: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m paretorch.cli {arguments} {closed}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
@pytest.mark.sampled(2)
def test_list_ends_without_an_error_where_standard_streams_are_closed(tmp_path: Path, closed: str) -> None:
    code, output = run_closed(closed, "list methods", tmp_path)
    assert (code, "MGDA" in output) == (0, closed == "2>&-")


def test_run_is_finished_and_its_files_contain_no_output_where_standard_streams_are_closed(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(TINY_FILE.read_text().replace("losses = {}", NOISE))
    code, output = run_closed(">&- 2>&-", "train noisy.py --epochs 2 --batch-size 8 --out run", tmp_path)
    assert (code, output) == (0, "")
    assert len(Result.load(tmp_path / "run").history) == 2
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"noise" not in path.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_run_is_finished_where_one_standard_stream_is_closed(tmp_path: Path, closed: str) -> None:
    code, output = run_closed(closed, f"train {TINY_FILE} --epochs 2 --batch-size 8 --out run", tmp_path)
    assert (code, "Traceback" in output) == (0, False)
    assert len(Result.load(tmp_path / "run").history) == 2
