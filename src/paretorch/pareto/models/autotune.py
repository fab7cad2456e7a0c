"""Which of several ways to compute the same takes the least time here: a short measurement, which distrusts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TRIES = 5  # of each way, after one that also sets up and does not count; the fastest of each counts
HOPELESS = 2.0  # times the fastest: a way that was slower at its first try is not tried again
CLEARLY = 0.9  # of the time of what is preferred that a way may take, to be chosen for it
AGREE = 1e-3  # difference up to which two ways compute the same tensor, over its largest entry
ROUNDING = 1e-5  # difference that is rounding, over the largest entry of what it was computed with


Results = Sequence[Sequence[Tensor]]  # by group: those of one group are computed together, with roundings of one size


def autotune(ways: Mapping[str, Callable[[], Results]]) -> tuple[str, str]:
    """The name of the way that took least time, and why in words.

    Args:
        ways: name -> what computes, the preferred first; each can be called many times. The first is the one to trust: what the
            others give must agree with it, and its errors are raised. One that raises or gives other numbers is out of question.

    Example:
        >>> one = torch.ones(3)
        >>> autotune({"sum": lambda: [[one.sum()]], "wrong": lambda: [[one.sum() + 1]]})
        ('sum', 'wrong gives other numbers for this model')
    """
    trusted, *others = ways
    right, seconds, refused = _copied(ways[trusted]()), {trusted: [_seconds(ways[trusted])]}, []
    for name in others:
        try:
            found = _copied(ways[name]())
        except Exception as error:  # vmap refuses what it cannot batch in many ways; the reason is recorded
            refused.append(f"{name} cannot run this model: {str(error).splitlines()[0][:200]}")
            continue
        if all(map(_agree, right, found)):
            seconds[name] = [_seconds(ways[name])]
        else:
            refused.append(f"{name} gives other numbers for this model")
    best = min(map(min, seconds.values()))
    for _ in range(TRIES - 1):
        for name, taken in seconds.items():
            if taken[0] <= HOPELESS * best:
                taken.append(_seconds(ways[name]))
    least = {name: min(taken) for name, taken in seconds.items()}
    chosen = trusted
    for name in least:
        chosen = name if least[name] < CLEARLY * least[chosen] else chosen
    ratios = [
        f"{name} takes {least[name] / least[trusted]:.2f} x the time of the {trusted}"
        for name in others
        if name in least
    ]
    return chosen, "; ".join([*ratios, *refused])


def _copied(found: Results) -> list[list[Tensor]]:
    return [[value.detach().clone() for value in group] for group in found]


def _seconds(way: Callable[[], Results]) -> float:
    began = time.perf_counter()
    float(way()[0][0].sum())  # until then a device may still be at work
    return time.perf_counter() - began


def _agree(right: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether two ways computed the same group. The gradient of a bias before batch norm is nothing but rounding."""
    scales = [float(value.double().abs().nan_to_num().max()) if value.numel() else 0.0 for value in right]
    bounds = [max(AGREE * scale, ROUNDING * max(scales), 1e-15) for scale in scales]
    return len(right) == len(found) and all(
        torch.allclose(a.double(), b.double(), rtol=AGREE, atol=bound, equal_nan=True)
        for a, b, bound in zip(right, found, bounds, strict=True)
    )
