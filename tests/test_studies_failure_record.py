"""Records of failed runs, and errors about damaged files of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from paretorch.reports.reading.missing import missing
from paretorch.storage.seals import SEAL, sealed
from paretorch.studies.failure_record import FILE, FailureRecord, read_failure, write_failure
from paretorch.studies.job import Job
from paretorch.studies.tuner import _seconds_of_events
from paretorch.training.run import Run

RUN = Run("digits")
FAILURE = FailureRecord("ValueError: nan", "here", diverged=True)


def test_failure_record_is_read_as_written(tmp_path: Path) -> None:
    assert read_failure(tmp_path / "run", RUN) is None
    write_failure(tmp_path / "run", RUN, FAILURE)
    assert read_failure(tmp_path / "run", RUN) == FAILURE
    assert Job("A", RUN, tmp_path / "run", trial=1).diverged
    assert not Job("A", RUN, tmp_path / "run").diverged, "only trials are stopped"


def test_failure_record_without_its_digest_or_run_is_damaged(tmp_path: Path) -> None:
    """A piece that is lost may take the names of both with it, and leave valid values."""
    write_failure(tmp_path, RUN, FAILURE)
    content = json.loads((tmp_path / FILE).read_text())
    del content[SEAL]
    values = {name: value for name, value in content.items() if name != "run"}
    for record in (content, values, sealed(values)):
        (tmp_path / FILE).write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"failed\.json is damaged: .*Remove it"):
            read_failure(tmp_path, RUN)


@pytest.mark.parametrize("content", ["no", "[]", "{}", '"text"', '{"run": 3, "error": "", "traceback": ""}'])
def test_damaged_failure_record_is_named_by_trials_and_reports(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"failed\.json is damaged: .*Remove it"):
        _ = Job("A", RUN, tmp_path, trial=1).diverged
    with pytest.raises(ValueError, match=r"failed\.json is damaged: .*Remove it"):
        missing("A", RUN, tmp_path)


def test_failure_record_of_another_run_is_refused_by_a_trial(tmp_path: Path) -> None:
    write_failure(tmp_path, dataclasses.replace(RUN, seed=1), FAILURE)
    with pytest.raises(ValueError, match=r"failed\.json contains another run: its seed is 1, expected 0"):
        _ = Job("A", RUN, tmp_path, trial=1).diverged


@pytest.mark.parametrize("content", ["no", "[]", '{"history": 3}', '{"history": [{"epoch": 1}]}'])
def test_damaged_result_is_named_where_its_seconds_are_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is damaged: .*Remove it to finish the run again"):
        _ = Job("A", RUN, tmp_path).seconds


@pytest.mark.parametrize("line", ["[]", '{"epoch": 1}', '{"event": "epoch"}'])
def test_damaged_events_of_a_failed_trial_are_named(line: str, tmp_path: Path) -> None:
    event = json.dumps({"event": "epoch", "seconds": {"training": 2.0, "evaluation": 0.5}})
    path = tmp_path / "events.jsonl"
    path.write_text(f'{event}\n{{"event": "st')
    assert _seconds_of_events(tmp_path) == 2.5, "an incomplete last line is ignored"
    path.write_text(f"{event}\n{line}\n")
    with pytest.raises(ValueError, match=r"events\.jsonl is damaged: line 2 is no event"):
        _seconds_of_events(tmp_path)
