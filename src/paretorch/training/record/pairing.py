"""Whether runs of one seed receive the same batches, as a fact of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paretorch.workloads.streams import OWN_ORDER, PairedStream, Stream

UNPAIRED = "runs are not paired"  # the fact of a result; its value is the reason


def pairing_facts(streams: Sequence[Stream]) -> dict[str, str]:
    """The fact that the order of the training samples does not follow from the seed; empty if it does."""
    unpaired = any(isinstance(stream, PairedStream) and not stream.is_paired for stream in streams)
    return {UNPAIRED: OWN_ORDER} if unpaired else {}


def pairing_note(facts: Sequence[Mapping[str, Any]]) -> str:
    """A sentence for a report of results with these facts; empty if all of them are paired.

    Example:
        >>> pairing_note([{}, {"runs are not paired": "the data set gives its samples in an order of its own"}])
        'runs are not paired: the data set gives its samples in an order of its own'
    """
    return next((f"{UNPAIRED}: {fact[UNPAIRED]}" for fact in facts if UNPAIRED in fact), "")
