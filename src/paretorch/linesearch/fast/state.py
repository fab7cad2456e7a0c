"""State of the fast search between steps."""

from __future__ import annotations

import math
from typing import NamedTuple

from paretorch.linesearch.fast.displacement_reuse import DisplacementReuse
from paretorch.linesearch.parts import SearchState


class EncoderProperties(NamedTuple):
    """What the search has measured of the encoder.

    Args:
        subsample_reliable: whether the slopes on a subsample agree with those of the batch.
        samples_independent: whether a sample's features are independent of the other samples; None: not known yet.
        divisible: whether the encoder accepts a part of a batch; None: not known yet.
        double_backward: whether an operation has no forward-mode derivative.
        twice_differentiable: whether every operation was checked for a second derivative.
    """

    subsample_reliable: bool = True
    samples_independent: bool | None = None
    divisible: bool | None = None
    double_backward: bool = False
    twice_differentiable: bool = False


class FastState(NamedTuple):
    """State of the fast search between steps.

    Args:
        search: state that every search has.
        encoder: what was measured of the encoder.
        reuse: how well slopes predicted the last steps.
        ratio: of the norms of displacement and direction, at the last measurement; nan before the first.
        scalable: whether, along the features' own gradient at that norm, every task has a share beta of its slope.
        follows: with ``displacement="gradient"``, whether the encoder's step decreases every loss; true for a given bound.
        checked_tasks: tasks whose losses were found to come from the given features.
    """

    search: SearchState
    encoder: EncoderProperties = EncoderProperties()
    reuse: DisplacementReuse = DisplacementReuse()
    ratio: float = math.nan
    scalable: bool = True
    follows: bool = False
    checked_tasks: frozenset[str] = frozenset()
