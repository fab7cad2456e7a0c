"""Errors of samples that cannot be read, the share of them that is permitted, and their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_UNREADABLE = 0.01  # of the samples of a stream or a pack


class UnreadableError(Exception):
    """A sample that cannot be used.

    Args:
        name: the file, as the data set names it.
        reason: why it cannot be used.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class DamagedError(ValueError):
    """A pack whose content differs from what was written; the message names the cure."""


def shortened(names: Sequence[object], most: int = 5) -> str:
    """The first ``most`` names and the number of the others.

    Example:
        >>> shortened(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(map(str, names[:most]))}{more}"


def check_unreadable(name: str, reasons: Mapping[str, str], total: int, cure: str) -> None:
    """Checks that at most :data:`MAX_UNREADABLE` of the samples are unreadable.

    Args:
        name: of the stream or pack.
        reasons: why each unreadable sample cannot be used, by name.
        total: number of samples.
        cure: the end of the message.

    Raises:
        ValueError: there are more; the message lists the first ten.
    """
    if len(reasons) > MAX_UNREADABLE * total:
        listed = "\n".join(f"  {sample}: {reason}" for sample, reason in list(reasons.items())[:10])
        raise ValueError(
            f"{name}: {len(reasons)} of {total:,} images cannot be read, more than {100 * MAX_UNREADABLE:g} %:\n{listed}\n"
            f"Restore these files, or remove them from the data set{cure}"
        )
