"""``front.json`` with a valid checksum and content of another shape: an error that names the file, and no raw one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import paretorch as pt
from front_points import on_points
from paretorch.pareto import Sweep
from paretorch.pareto.files import front_folder
from paretorch.pareto.files.front_folder import read_numbers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metrics", [1, 2, 3]),
        ("metrics", [{"f1": 1}] * 3),
        ("metrics", [{}]),
        ("losses", [[0.5], [0.5], [0.5]]),
        ("losses", 1.0),
        ("preferences", [[0.5, 0.5]]),
        ("preferences", [["a", "b"]] * 3),
        ("reference", [1.0]),
        ("diverged", {"a": 1}),
        ("diverged", [3]),
        ("history", 7),
        ("history", [{"gradients": 1, "seconds": 0.1, "losses": [], "hypervolume": 1.0}]),
        ("history", [{"epoch": "1", "gradients": 1, "seconds": 0.1, "losses": [], "hypervolume": 1.0}]),
        ("sha256", []),
        ("facts", []),
    ],
)
def test_front_file_of_another_shape_is_named(name: str, value: Any, tmp_path: Path) -> None:
    on_points(Sweep(), pt.preferences(2, 3), epochs=1).save(tmp_path)
    path = tmp_path / "front.json"
    assert len(read_numbers(path).losses) == 3
    values = json.loads(path.read_text()) | {name: value}
    del values["checksum"]
    path.write_text(json.dumps({**values, "checksum": front_folder._checksum(values)}))
    with pytest.raises(ValueError, match=r"front\.json is damaged"):
        read_numbers(path)
