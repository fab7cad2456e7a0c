"""Preferences: how important each task is, as an argument of methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from paretorch.core.checks import nearest

Preference = Mapping[str, float] | Sequence[float] | None


def checked(preference: Preference) -> None:
    """Check that the values are finite, at least zero, and not all zero."""
    if preference is None:
        return
    numbers = preference.values() if isinstance(preference, Mapping) else preference
    if not isinstance(numbers, Iterable) or isinstance(numbers, str):
        raise ValueError(f"a preference has a value for each task, by name or in order; got {preference!r}")
    values = list(numbers)
    if any(isinstance(value, str) or value is None for value in values):
        raise ValueError(f"a preference has a number for each task, got {preference!r}")
    if not values or not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values) > 0:
        raise ValueError(f"a preference has a finite value of at least 0 for each task, not all 0; got {preference!r}")


def check_tasks(preference: Preference, tasks: tuple[str, ...]) -> None:
    """Check that the preference has a value for exactly these tasks."""
    if isinstance(preference, Mapping):
        for name in preference:
            if name not in tasks:
                raise ValueError(f"the preference names {name!r}; the tasks are {nearest(name, tasks)}")
        missing = [name for name in tasks if name not in preference]
        if missing:
            raise ValueError(f"the preference has no value for {', '.join(map(repr, missing))}")
    elif preference is not None and len(preference) != len(tasks):
        raise ValueError(f"the preference has {len(preference)} values for {len(tasks)} tasks {tasks}")


def on_simplex(preference: Preference, tasks: tuple[str, ...], present: Tensor) -> Tensor:
    """(T,) the preference of the present tasks, summing to one; uniform where none is given, or where theirs are all zero.

    Args:
        preference: of the declared tasks, by name or in declared order.
        tasks: (T,) names of the present tasks.
        present: (all,) mask of the present tasks.
    """
    if preference is None:
        return _uniform(len(tasks))
    if isinstance(preference, Mapping):
        values = torch.tensor([float(preference[name]) for name in tasks], dtype=torch.float64)
    else:
        values = torch.tensor([float(value) for value in preference], dtype=torch.float64)[present]
    total = values.sum()
    return values / total if total > 0 else _uniform(len(tasks))


@lru_cache(maxsize=64)
def _uniform(tasks: int) -> Tensor:
    return torch.full((tasks,), 1 / max(tasks, 1), dtype=torch.float64)
