"""Former names of the line searches: they work and warn."""

from __future__ import annotations

from operator import attrgetter

import pytest
from torch import nn

import paretorch as pt
from paretorch import linesearch


@pytest.mark.parametrize(("former", "name"), [("Outcome", "SearchOutcome"), ("Units", "LossScaling")])
def test_former_class_names_warn(former: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=f"{former} is now paretorch.linesearch.{name}"):
        assert getattr(linesearch, former) is getattr(linesearch, name)


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("units", "parts.scaling"),
        ("own", "parts.head_parameters"),
        ("shared", "parts.shared"),
        ("encoder", "parts.encoder"),
        ("rules", "parts.rules"),
        ("max_step", "parts.max_step"),
    ],
)
def test_former_attributes_of_searches_warn(former: str, name: str) -> None:
    search = pt.FastBacktracking(nn.Linear(2, 2), {"a": nn.Linear(2, 1)}, pt.MGDA(), 0.5)
    with pytest.warns(FutureWarning, match=f"FastBacktracking.{former} is now FastBacktracking.{name}"):
        assert getattr(search, former) is attrgetter(name)(search)


def test_unknown_attribute_of_a_search_is_an_error() -> None:
    search = pt.Backtracking(nn.Linear(2, 2), {"a": nn.Linear(2, 1)}, pt.MGDA())
    with pytest.raises(AttributeError, match="'Backtracking' object has no attribute 'calm'"):
        _ = search.calm
