"""The choice of one of several equivalent functions, after a check of their results: by a short measurement, or by a rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TRIES = 5  # of each function after a warm-up; the least time counts
HOPELESS = 2.0  # relative to the fastest: a function slower than this in its first try is not measured again
CLEARLY = 0.9  # the largest time relative to the preferred function at which another one replaces it
AGREE = 1e-3  # tolerance of results, relative to the largest entry
ROUNDING = 1e-5  # tolerance of rounding, relative to the largest entry of the group


Results = Sequence[Sequence[Tensor]]  # by group of tensors whose rounding errors are of one size


def autotune(candidates: Mapping[str, Callable[[], Results]]) -> tuple[str, str]:
    """The name of the fastest function, and the reason as text.

    Args:
        candidates: functions by name, the preferred one first; each is called several times. The first is the reference: its
            errors are raised. Other functions that raise, or whose results differ from it, are excluded.

    Example:
        >>> one = torch.ones(3)
        >>> autotune({"sum": lambda: [[one.sum()]], "wrong": lambda: [[one.sum() + 1]]})
        ('sum', 'wrong gives other numbers for this model')
    """
    reference, *others = candidates
    expected, seconds, excluded = _copied(candidates[reference]()), {reference: [_seconds(candidates[reference])]}, []
    for name in others:
        if reason := _why_excluded(name, candidates[name], expected):
            excluded.append(reason)
        else:
            seconds[name] = [_seconds(candidates[name])]
    best = min(map(min, seconds.values()))
    for _ in range(TRIES - 1):
        for name, taken in seconds.items():
            if taken[0] <= HOPELESS * best:
                taken.append(_seconds(candidates[name]))
    least = {name: min(taken) for name, taken in seconds.items()}
    chosen = reference
    for name in least:
        chosen = name if least[name] < CLEARLY * least[chosen] else chosen
    ratios = [
        f"{name} takes {least[name] / least[reference]:.2f} x the time of the {reference}"
        for name in others
        if name in least
    ]
    return chosen, "; ".join([*ratios, *excluded])


def verified(candidates: Mapping[str, Callable[[], Results]]) -> tuple[str, str]:
    """The name of the last function if it can replace the first one, else of the first, and the reason if so.

    Args:
        candidates: two functions by name; each is called once. The first is the reference: its errors are raised.

    Example:
        >>> one = torch.ones(3)
        >>> verified({"sum": lambda: [[one.sum()]], "wrong": lambda: [[one.sum() + 1]]})
        ('sum', 'wrong gives other numbers for this model')
    """
    reference, preferred = candidates
    reason = _why_excluded(preferred, candidates[preferred], _copied(candidates[reference]()))
    return (reference, reason) if reason else (preferred, "")


def _why_excluded(name: str, function: Callable[[], Results], expected: Results) -> str:
    """Why a function cannot replace the reference; empty if it can."""
    try:
        found = _copied(function())
    except Exception as error:  # vmap raises errors of many classes; the reason is recorded
        return f"{name} cannot run this model: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
    return "" if all(map(_agree, expected, found)) else f"{name} gives other numbers for this model"


def _copied(found: Results) -> list[list[Tensor]]:
    return [[value.detach().clone() for value in group] for group in found]


def _seconds(function: Callable[[], Results]) -> float:
    began = time.perf_counter()
    float(function()[0][0].sum())  # waits for an asynchronous device
    return time.perf_counter() - began


def _agree(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether two results of a group agree. The gradient of a bias before batch norm is rounding alone."""
    scales = [float(value.double().abs().nan_to_num().max()) if value.numel() else 0.0 for value in expected]
    bounds = [max(AGREE * scale, ROUNDING * max(scales), 1e-15) for scale in scales]
    return len(expected) == len(found) and all(
        torch.allclose(a.double(), b.double(), rtol=AGREE, atol=bound, equal_nan=True)
        for a, b, bound in zip(expected, found, bounds, strict=True)
    )
