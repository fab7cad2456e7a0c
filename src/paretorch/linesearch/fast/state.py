"""State of the fast search between steps."""

from __future__ import annotations

import math
from typing import NamedTuple

from paretorch.linesearch.fast.displacement_reuse import DisplacementReuse
from paretorch.linesearch.parts import SearchState


class EncoderProperties(NamedTuple):
    """What the search has measured of the encoder."""

    subsample_reliable: bool = True  # whether the slopes on a subsample agree with those of the batch
    # whether a sample's features are independent of the other samples; None: not known yet
    samples_independent: bool | None = None
    divisible: bool | None = None  # whether the encoder accepts a part of a batch; None: not known yet
    double_backward: bool = False  # whether an operation has no forward-mode derivative
    differentiable: bool = True  # whether its operations have a forward-mode derivative or a second backward
    twice_differentiable: bool = False  # whether every operation was checked for a second derivative


class FastState(NamedTuple):
    """State of the fast search between steps."""

    search: SearchState  # state that every search has
    encoder: EncoderProperties = EncoderProperties()  # what was measured of the encoder
    reuse: DisplacementReuse = DisplacementReuse()  # how well slopes predicted the last steps
    ratio: float = math.nan  # of the norms of displacement and direction, at the last measurement; nan before the first
    # Whether, along the features' own gradient at that norm, every task has a share beta of its slope.
    scaling_agrees: bool = True
    # with ``displacement="gradient"``, whether the encoder's step decreases every loss; true for a given bound
    encoder_descends: bool = False
    checked_tasks: frozenset[str] = frozenset()  # tasks whose losses were found to come from the given features
