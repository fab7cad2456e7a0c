"""Extensions of file names, which some programs write in capitals: either way it is the same file."""

from __future__ import annotations

from pathlib import Path


def spellings(suffix: str) -> tuple[str, ...]:
    """The ways in which an extension is written, its own first.

    Example:
        >>> spellings(".npy")
        ('.npy', '.NPY', '.Npy')
    """
    return tuple(dict.fromkeys((suffix, suffix.lower(), suffix.upper(), suffix.title())))


def as_spelled(path: Path) -> Path:
    """The file, or the only one whose extension alone is written otherwise; ``path`` where there is neither."""
    if path.exists():
        return path
    others = [other for suffix in spellings(path.suffix)[1:] if (other := path.with_suffix(suffix)).exists()]
    return others[0] if len(others) == 1 else path


def plain(name: str) -> str:
    """A name with its extension in small letters.

    Example:
        >>> plain("Front_01.JPG")
        'Front_01.jpg'
    """
    suffix = Path(name).suffix
    return name.removesuffix(suffix) + suffix.lower()
