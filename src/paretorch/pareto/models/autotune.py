"""The choice of the fastest of several equivalent functions, by a short measurement that checks their results."""

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
        try:
            found = _copied(candidates[name]())
        except Exception as error:  # vmap raises errors of many classes; the reason is recorded
            excluded.append(f"{name} cannot run this model: {str(error).splitlines()[0][:200]}")
            continue
        if all(map(_agree, expected, found)):
            seconds[name] = [_seconds(candidates[name])]
        else:
            excluded.append(f"{name} gives other numbers for this model")
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
