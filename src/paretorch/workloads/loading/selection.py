"""Selections of names that depend on the names and a seed alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b


def ordered(names: Iterable[str], seed: int) -> list[str]:
    """The names, sorted by a hash of name and seed.

    The order of two names does not depend on the other names. If a part of a data set is missing, the first images of what
    remains are therefore among the first images of the whole.

    Example:
        >>> whole = ordered(map(str, range(100)), seed=0)
        >>> ordered(whole[:10], seed=0) == whole[:10]
        True
    """

    def key(name: str) -> tuple[bytes, str]:
        return blake2b(os.fsencode(name), digest_size=8, key=str(seed).encode()).digest(), name

    return sorted(names, key=key)


def equal_shares(available: Mapping[str, int], wanted: int) -> dict[str, int] | None:
    """Numbers of images to take from each group, as equal as possible; None if there are fewer than wanted.

    Args:
        available: number of images by group.
        wanted: total number.

    Example:
        >>> equal_shares({"a": 10, "b": 2, "c": 10}, 15)
        {'a': 7, 'b': 2, 'c': 6}
    """
    if sum(available.values()) < wanted:
        return None
    taken = dict.fromkeys(available, 0)
    left = wanted
    while left:
        open_ = [group for group in available if taken[group] < available[group]]
        level = max(1, min(left // len(open_), min(available[group] - taken[group] for group in open_)))
        for group in open_[: left if left < len(open_) else None]:
            taken[group] += level
            left -= level
    return taken


def assigned(
    available: Mapping[str, int], parts: Mapping[str, int], where: str
) -> dict[str, dict[str, tuple[int, int]]]:
    """Ranges of positions in each group's order, by part and group; disjoint, and for each part as equal as possible.

    Args:
        available: number of images by group.
        parts: number of images by part, in the order of assignment.
        where: the data set, for the message.

    Raises:
        ValueError: there are fewer images than wanted.

    Example:
        >>> assigned({"cat": 5, "dog": 5}, {"test": 2, "train": 6}, "pets/")
        {'test': {'cat': (0, 1), 'dog': (0, 1)}, 'train': {'cat': (1, 4), 'dog': (1, 4)}}
    """
    ranges: dict[str, dict[str, tuple[int, int]]] = {}
    begin = dict.fromkeys(available, 0)
    for part, wanted in parts.items():
        counts = equal_shares({group: available[group] - begin[group] for group in available}, wanted)
        if counts is None:
            total = " + ".join(f"{count:,} for {name}" for name, count in parts.items())
            classes = f" in {len(available):,} classes" if len(available) > 1 else ""
            raise ValueError(
                f"too few images: {where} has {sum(available.values()):,}{classes}, the options require {total}. "
                f"Reduce {', '.join(f'{name}=...' for name in parts)}, or add images"
            )
        ranges[part] = {group: (begin[group], begin[group] + counts[group]) for group in available}
        begin = {group: begin[group] + counts[group] for group in available}
    return ranges


def hold_out(names: Sequence[str], share: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names for training and names for validation: a share of them, at least one, selected by name and seed.

    Raises:
        ValueError: no name remains for training.

    Example:
        >>> train, validation = hold_out([str(number) for number in range(10)], share=0.2, seed=0)
        >>> len(train), len(validation), set(train) & set(validation)
        (8, 2, set())
    """
    if len(names) < 2:
        raise ValueError(
            f"validation: expected at least two training scenes, for training and validation, got {len(names)}: add scenes"
        )
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ValueError(
            f"validation: a share of {share} of {len(names)} training scenes leaves none for training; reduce the share, or "
            "add scenes"
        )
    taken = set(ordered(names, seed)[:count])
    return tuple(name for name in names if name not in taken), tuple(name for name in names if name in taken)
