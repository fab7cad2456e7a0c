"""Line searches for tests: every search with every displacement, and a point as an encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

import paretorch as pt
from paretorch.linesearch import LineSearch

DISPLACEMENTS = ("gradient", "linearised", "difference", "calibrated")
SEARCHES: dict[str, Callable[..., LineSearch]] = {
    "classical": pt.Backtracking,
    **{name: partial(pt.FastBacktracking, displacement=name) for name in DISPLACEMENTS},
}


def is_possible(name: str, direction: str) -> bool:
    """Whether the search has such a direction."""
    if name == "classical" or direction == "gradient":
        return True
    return name != "gradient" and direction != "LBFGS"


class Point(nn.Module):
    """An encoder whose parameters are a point, multiplied by the input."""

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.at * x
