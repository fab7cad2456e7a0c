"""Functions of the spawned ranks that train one front."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import paretorch as pt
from paretorch.pareto import Cosine, Front, FrontAlgorithm, Gated, HypervolumeAscent, SmoothTchebycheff
from paretorch.workloads.synthetic import Synthetic

ALGORITHMS: dict[str, FrontAlgorithm] = {
    "gated": pt.MT2O(),
    "adopting": pt.MT2O(SmoothTchebycheff(0.1)),  # on two valleys
    "adaptive": pt.MT2O(transfer=Gated(Cosine()), adapt="hypervolume"),
    "hypervolume": HypervolumeAscent((1.0, 1.0)),
    "hypervolume, together": HypervolumeAscent((1.0, 1.0)),
}
TOGETHER = {"hypervolume, together"}  # by vmap; others: in a loop
PROBLEMS = {"adopting": "two_valley"}  # others: vlmop2
MEMBERS = 5  # does not divide by two or four


def spread_front(name: str) -> Front:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        front: Front = pt.fit_front(
            Synthetic(PROBLEMS.get(name, "vlmop2")),
            ALGORITHMS[name],
            preferences=pt.preferences(2, MEMBERS, margin=0.05),
            epochs=12,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5),
            starts="independent",
            execution="vmap" if name in TOGETHER else "loop",
        )
    finally:
        torch.set_default_dtype(before)
    return front


def front_numbers(front: Front) -> dict[str, Any]:
    return {
        "losses": front.losses,
        "preferences": front.preferences,
        "points": torch.stack([state["encoder.point"] for state in front.states]),
        "hypervolumes": torch.tensor([moment.hypervolume for moment in front.history]),
    }


def every_front(rank: int) -> dict[str, dict[str, Tensor]]:
    """All algorithms in one set of processes: starting them costs more than running them."""
    del rank
    return {name: front_numbers(spread_front(name)) for name in ALGORITHMS}


def too_few_models(rank: int) -> str:
    del rank
    try:
        pt.fit_front(Synthetic("vlmop2"), pt.MT2O(), preferences=[(0.5, 0.5)], epochs=1)
    except ValueError as error:
        return str(error)
    return "nothing was refused"
