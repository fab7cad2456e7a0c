"""Optional packages: imported where they are used, and named, with the command that installs them, when missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turns a failed import of an optional package into a message that says how to install it.

    Args:
        name: the extra of paretorch that brings the package.

    Raises:
        ModuleNotFoundError: the package is missing; the message holds the command.

    Example:
        >>> with extra("studies"):
        ...     import a_package_that_is_not_there
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: a_package_that_is_not_there is not installed: pip install 'paretorch[studies]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'paretorch[{name}]'", name=error.name
        ) from error
