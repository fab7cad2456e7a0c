"""Extensions of file names without regard to case."""

from __future__ import annotations

from pathlib import Path


def extension_spellings(suffix: str) -> tuple[str, ...]:
    """An extension as given, in lower case, in upper case and capitalised, without duplicates.

    Example:
        >>> extension_spellings(".npy")
        ('.npy', '.NPY', '.Npy')
    """
    return tuple(dict.fromkeys((suffix, suffix.lower(), suffix.upper(), suffix.title())))


def existing_path(path: Path) -> Path:
    """The path, or the only existing one whose extension differs in case; ``path`` itself if there is neither."""
    if path.exists():
        return path
    others = [other for suffix in extension_spellings(path.suffix)[1:] if (other := path.with_suffix(suffix)).exists()]
    return others[0] if len(others) == 1 else path


def lower_extension(name: str) -> str:
    """A file name with its extension in lower case.

    Example:
        >>> lower_extension("Front_01.JPG")
        'Front_01.jpg'
    """
    suffix = Path(name).suffix
    return name.removesuffix(suffix) + suffix.lower()
