"""The rule of what a task may be called."""

from __future__ import annotations


def check_task_name(name: object) -> None:
    r"""Checks that a name can be stored with a model: a string of one line that can be encoded as UTF-8.

    Raises:
        ValueError: it cannot.

    Example:
        >>> check_task_name("left")
        >>> check_task_name("two\nlines")
        Traceback (most recent call last):
        ...
        ValueError: a task name is a non-empty string of one line, without ... surrogates, got 'two\nlines'
    """
    if not isinstance(name, str) or not name or any(x in "\n\0" or "\ud800" <= x <= "\udfff" for x in name):
        raise ValueError(
            f"a task name is a non-empty string of one line, without null characters and lone surrogates, got {name!r}"
        )
