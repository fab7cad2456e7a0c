"""Convergence to the Pareto set of two losses, each of which dominates in a part of the plane."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import paretorch as pt

FILE = Path(__file__).parents[1] / "docs" / "pictures" / "valleys.py"


@lru_cache(maxsize=1)
def valleys() -> ModuleType:
    """The script that draws the figure."""
    spec = importlib.util.spec_from_file_location("valleys", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.parametrize("start", range(3))
@pytest.mark.parametrize("method", [pt.MGDA(), pt.IMTLG(), pt.AlignedMTL()], ids=lambda method: type(method).__name__)
def test_consistent_method_reaches_pareto_set_of_valleys(method: pt.Method[Any], start: int) -> None:
    toy = valleys()
    end = torch.tensor(toy.path(method, toy.STARTS[start], steps=5000, rate=1e-2)[-1])
    assert float((toy.pareto_set(201) - end).norm(dim=1).min()) <= 0.1
