"""A table of every front algorithm and its properties. An exported algorithm without an entry fails a test."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest

import paretorch as pt
from paretorch.pareto import (
    COSMOS,
    EPO,
    NSGA2,
    PHNEPO,
    PHNLS,
    Cosine,
    FrontAlgorithm,
    Gated,
    HypervolumeAscent,
    MGDAStarts,
    Neighbours,
    PaMaL,
    ParetoMTL,
    SmoothTchebycheff,
    Sweep,
)


@dataclass(frozen=True)
class AlgorithmEntry:
    """An algorithm and its properties.

    Args:
        algorithm: an instance.
        gradients: gradient evaluations of a step with three preferences and two tasks.
        kind: what is trained: ``"members"``, one ``"conditional"`` model, or a ``"population"``.
        interior: preferences must be above zero.
        moves_preferences: the preferences of the front differ from those given.
        transfers: parameters are transferred between members.
        resumes: a killed training can be resumed.
    """

    algorithm: FrontAlgorithm
    gradients: int
    kind: str = "members"
    interior: bool = False
    moves_preferences: bool = False
    transfers: bool = False
    resumes: bool = True

    @property
    def name(self) -> str:
        return repr(self.algorithm)


ALGORITHMS = [
    AlgorithmEntry(pt.MT2O(), 3, transfers=True),
    AlgorithmEntry(pt.MT2O(transfer=None), 3),
    AlgorithmEntry(pt.MT2O(transfer=Neighbours(rho=0.3), normalize=True), 3, transfers=True),
    AlgorithmEntry(
        pt.MT2O(SmoothTchebycheff(0.1), Gated(Cosine()), adapt="hypervolume"), 3, moves_preferences=True, transfers=True
    ),
    AlgorithmEntry(Sweep(), 3),
    AlgorithmEntry(Sweep(SmoothTchebycheff(), adapt="spacing"), 3, moves_preferences=True),
    AlgorithmEntry(HypervolumeAscent(), 3),
    AlgorithmEntry(EPO(), 6, interior=True),
    AlgorithmEntry(ParetoMTL(), 6),
    AlgorithmEntry(MGDAStarts(), 6),
    AlgorithmEntry(COSMOS(), 1, "conditional"),
    AlgorithmEntry(PHNLS(hidden=8), 1, "conditional"),
    AlgorithmEntry(PHNEPO(hidden=8), 2, "conditional", interior=True),
    AlgorithmEntry(PaMaL(window=2), 2, "conditional"),
    AlgorithmEntry(NSGA2(population=8), 0, "population", resumes=False),
]
TRAINED = [entry for entry in ALGORITHMS if entry.kind != "population"]

needs_pymoo = pytest.mark.skipif(importlib.util.find_spec("pymoo") is None, reason="needs pymoo, of paretorch[fronts]")


def parameters(entries: list[AlgorithmEntry]) -> list[Any]:
    """Arguments of a parametrized test, one for each entry."""
    return [
        pytest.param(entry, id=entry.name, marks=[needs_pymoo] if isinstance(entry.algorithm, NSGA2) else [])
        for entry in entries
    ]
