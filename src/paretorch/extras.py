"""Errors for optional packages that are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Converts the failed import of an optional package to an error with the command that installs it.

    Args:
        name: the extra of paretorch that installs the package.

    Raises:
        ModuleNotFoundError: the package is missing; the message contains the command.

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
