"""Whether a run was trained together with others that differ in the seed alone, as a fact of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOGETHER = "trained together with seeds"  # the fact of a result; its value are the seeds


def together_note(facts: Sequence[Mapping[str, Any]]) -> str:
    """A sentence for a report of results with these facts; empty if every run was trained by itself.

    Example:
        >>> together_note([{}, {"trained together with seeds": [0, 1]}])[:53]
        '1 of 2 runs were trained together with others that di'
    """
    count = sum(TOGETHER in fact for fact in facts)
    if not count:
        return ""
    return (
        f"{count} of {len(facts)} runs were trained together with others that differ in the seed alone: results equal those of "
        "separate runs to rounding, times are shares of the joint time, and peak memory is that of all together."
    )
