"""Studies by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

import studies_synthetic as synthetic
from paretorch.studies.lookup import find_study, study_names


def test_find_study_suggests_the_nearest_name() -> None:
    assert "quickstart" in study_names()
    with pytest.raises(ValueError, match=r"unknown study 'quikstart': did you mean 'quickstart'\?.*ends in \.py"):
        find_study("quikstart", "small")
    with pytest.raises(ValueError, match="scales of quickstart are 'smoke', 'small', got 'huge'"):
        find_study("quickstart", "huge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has a function study\(scale\) that returns a Study; it has none"),
        ("def study(scale): raise KeyError('lr')", "raised KeyError: 'lr'"),
        ("def study(scale): return [1]", "returns a paretorch Study, got list"),
        ("import no_such_module", "importing it raised ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_find_study_refuses_a_file_without_a_study(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.py.*{message}"):
        find_study(file, "small")
    with pytest.raises(ValueError, match="no study file at"):
        find_study(tmp_path / "missing.py", "small")


def test_find_study_returns_the_study_of_a_file() -> None:
    assert find_study(Path(synthetic.__file__), "small") == synthetic.study("small")
