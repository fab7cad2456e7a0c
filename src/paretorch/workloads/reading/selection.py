"""Which images of a data set a run uses: as many of each class as of the others, chosen by name and seed alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b


def ranked(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that each name and the seed decide.

    Two names keep their order whatever other names there are, so the first hundred of a thousand images are the same
    hundred when only two hundred are on this machine, as long as they are among them.

    Example:
        >>> whole = ranked(map(str, range(100)), seed=0)
        >>> ranked(whole[:10], seed=0) == whole[:10]
        True
    """

    def key(name: str) -> tuple[bytes, str]:
        return blake2b(os.fsencode(name), digest_size=8, key=str(seed).encode()).digest(), name

    return sorted(names, key=key)


def shares(available: Mapping[str, int], wanted: int) -> dict[str, int] | None:
    """How many to take of each group so that the groups are as equal as can be; None where there are fewer than wanted.

    Args:
        available: by group.
        wanted: in all.

    Example:
        >>> shares({"a": 10, "b": 2, "c": 10}, 15)
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


def dealt(available: Mapping[str, int], parts: Mapping[str, int], where: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Places in each group's ranking, by part and group: the parts are disjoint, each as equal over groups as can be.

    Args:
        available: images there are, by group.
        parts: images wanted, by part, in the order in which they are dealt.
        where: the place, for the message.

    Raises:
        ValueError: fewer images than asked for.

    Example:
        >>> dealt({"cat": 5, "dog": 5}, {"test": 2, "train": 6}, "pets/")
        {'test': {'cat': (0, 1), 'dog': (0, 1)}, 'train': {'cat': (1, 4), 'dog': (1, 4)}}
    """
    places: dict[str, dict[str, tuple[int, int]]] = {}
    begin = dict.fromkeys(available, 0)
    for part, wanted in parts.items():
        counts = shares({group: available[group] - begin[group] for group in available}, wanted)
        if counts is None:
            asked = " + ".join(f"{count:,} for {name}" for name, count in parts.items())
            classes = f" in {len(available):,} classes" if len(available) > 1 else ""
            raise ValueError(
                f"fewer images than asked for: {where} has {sum(available.values()):,}{classes}, asked are {asked}. "
                f"Ask for fewer ({', '.join(f'{name}=...' for name in parts)}), or add images"
            )
        places[part] = {group: (begin[group], begin[group] + counts[group]) for group in available}
        begin = {group: begin[group] + counts[group] for group in available}
    return places


def held_out(names: Sequence[str], share: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Scenes to train on and scenes to select on: a share, at least one, chosen by name and seed.

    Raises:
        ValueError: nothing would be left to train on.

    Example:
        >>> train, validation = held_out([str(number) for number in range(10)], share=0.2, seed=0)
        >>> len(train), len(validation), set(train) & set(validation)
        (8, 2, set())
    """
    if len(names) < 2:
        raise ValueError(
            f"validation: expected two training scenes or more, to train and to select on, got {len(names)}: add some"
        )
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ValueError(
            f"validation: a share of {share} of {len(names)} training scenes leaves nothing to train on; give a smaller "
            "share, or add scenes"
        )
    taken = set(ranked(names, seed)[:count])
    return tuple(name for name in names if name not in taken), tuple(name for name in names if name in taken)
