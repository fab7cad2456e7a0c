"""The method that a Fork or Balancer takes where none is given."""

from __future__ import annotations

import pkgutil
from collections.abc import Collection
from typing import Any

from paretorch.core.contract import Method

# The recommendation of the study `methods` (docs/which_method.md). It is resolved by name, because the core imports no method.
DEFAULT_NAME = "IMTLG"
DEFAULT_METHOD = f"paretorch.balance:{DEFAULT_NAME}"


def method_or_default(method: Method[Any] | None, tasks: Collection[str] | None) -> Method[Any]:
    """The method, or the recommended one if it is None.

    Args:
        method: a balancing method, or None.
        tasks: declared task names, or None if they are not declared.

    Raises:
        ValueError: no method, and one task, which leaves nothing to balance.
    """
    if method is not None:
        return method
    if tasks is not None and len(tasks) == 1:
        raise ValueError(
            f"no method and one task, {next(iter(tasks))!r}: a single loss needs no balancing, so call backward() on it; a "
            "method that is given is applied to one task as well"
        )
    default: Method[Any] = pkgutil.resolve_name(DEFAULT_METHOD)()
    return default
