"""Properties of all shipped studies."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from catalog import CATALOG, StudyEntry
from paretorch.cli.study import OPTIONS
from paretorch.cli.study import study as study_command
from paretorch.reports.compare import run_study
from paretorch.studies.lookup import find_study, study_module, study_names
from paretorch.studies.study import Study
from paretorch.studies.treatment_checks import check_treatments
from paretorch.training.run import Run

every_study = pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
every_scale = pytest.mark.parametrize(
    ("entry", "scale"),
    [pytest.param(entry, scale, id=f"{entry.name}-{scale}") for entry in CATALOG for scale in entry.digests],
)


def test_catalog_lists_every_shipped_study() -> None:
    assert sorted(entry.name for entry in CATALOG) == study_names()


@every_study
def test_shipped_study_has_the_listed_scales_and_names_them(entry: StudyEntry) -> None:
    scales = ", ".join(map(repr, entry.digests))
    with pytest.raises(ValueError, match=f"scales of {entry.name} are {scales}, got 'huge'"):
        find_study(entry.name, "huge")


@every_scale
def test_shipped_study_is_unchanged_so_that_its_folders_resume(entry: StudyEntry, scale: str) -> None:
    text = json.dumps(find_study(entry.name, scale).to_json(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(entry.digests[scale])


@every_scale
def test_shipped_study_survives_json(entry: StudyEntry, scale: str) -> None:
    study = find_study(entry.name, scale)
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


@every_scale
def test_treatments_of_a_shipped_study_differ_in_the_listed_fields_only(entry: StudyEntry, scale: str) -> None:
    study = find_study(entry.name, scale)
    differing = set()
    for title in study.workloads:
        runs = [run for treatment in study.treatments for run in treatment.on(title)]
        for field in dataclasses.fields(Run):
            if len({repr(getattr(run, field.name)) for run in runs}) > 1:
                differing.add(field.name)
    assert differing == entry.differs


@every_study
@pytest.mark.sampled(2)
def test_treatments_of_a_shipped_study_can_be_trained(entry: StudyEntry) -> None:
    check_treatments(find_study(entry.name, "smoke"))


@every_study
def test_shipped_study_has_the_listed_options(entry: StudyEntry) -> None:
    assert set(inspect.signature(study_module(entry.name).study).parameters) - {"scale"} == set(entry.options)
    with pytest.raises(ValueError, match=f"unknown option of the study {entry.name} 'epochs'"):
        find_study(entry.name, "smoke", {"epochs": 3})


@every_study
def test_options_of_a_shipped_study_change_its_runs(entry: StudyEntry) -> None:
    scale = list(entry.digests)[-1]
    default = find_study(entry.name, scale).to_json()
    for name, value in entry.options.items():
        changed = find_study(entry.name, scale, {name: value})
        assert changed.to_json() != default, name
        if name == "device":
            assert {run.device for treatment in changed.treatments for run in treatment.runs} == {value}


def test_command_has_the_options_of_all_shipped_studies() -> None:
    hints = get_type_hints(study_command, include_extras=True)
    panels = {name: hint.__metadata__[0].rich_help_panel for name, hint in hints.items() if hint is not type(None)}
    assert {name for name in panels if panels[name] == OPTIONS} == {name for entry in CATALOG for name in entry.options}


@every_study
def test_question_of_a_shipped_study_is_one_line_and_its_file_has_a_docstring(entry: StudyEntry) -> None:
    study = find_study(entry.name, "smoke")
    assert study.name == entry.name
    assert re.fullmatch(r"[^\n]+\?", study.question)
    title = entry.name.replace("-", " ")
    assert (study_module(entry.name).__doc__ or "").lower().startswith(f"{title}: ")


@pytest.mark.parametrize(
    ("entry", "scale"),
    [pytest.param(entry, scale, id=entry.name) for entry in CATALOG for scale in entry.files],
)
def test_missing_files_of_a_shipped_study_are_named_before_its_first_run(
    entry: StudyEntry, scale: str, tmp_path: Path
) -> None:
    options = {"root": str(tmp_path / "nowhere")}
    with pytest.raises(FileNotFoundError, match=rf"{entry.files[scale]} was not found in .*nowhere"):
        run_study(entry.name, scale, 1, tmp_path / "study", options=options, progress=False)
    assert not (tmp_path / "study").exists()
