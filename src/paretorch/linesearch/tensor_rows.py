"""Rows of tensors, one for each parameter: inner products, norms and weighted sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import Row


def inner_products(rows: Sequence[Row], direction: Row) -> list[float]:
    """(T,) inner products of T rows with one, with one transfer from the device; None counts as zero."""
    return paired_products(rows, [direction] * len(rows))


def paired_products(rows: Sequence[Row], others: Sequence[Row]) -> list[float]:
    """(T,) inner products of T rows with one row each, with one transfer from the device; None counts as zero."""
    products: list[Tensor] = []
    counts: list[int] = []
    for row, other in zip(rows, others, strict=True):
        pairs = [(a, b) for a, b in zip(row, other, strict=True) if a is not None and b is not None]
        counts.append(len(pairs))
        products += [torch.dot(a.detach().reshape(-1), b.detach().reshape(-1)) for a, b in pairs]
    if not products:
        return [0.0] * len(rows)
    values = iter(torch.stack(products).tolist())
    return [math.fsum(next(values) for _ in range(count)) for count in counts]


def norm(row: Row) -> float:
    """The Euclidean norm of a row."""
    return math.sqrt(inner_products([row], row)[0])


def with_zeros(row: Row, like: Sequence[Tensor]) -> list[Tensor]:
    """The row, with zeros in place of None."""
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(row, like, strict=True)]


def divided(row: Row, divisor: float) -> Row:
    """The row divided by a number."""
    return row if divisor == 1 else [None if part is None else part / divisor for part in row]


def weighted_sum(weights: Sequence[float], rows: Sequence[Row]) -> list[Tensor | None]:
    """sum_t w_t g_t; None where every row has None.

    Args:
        weights: (T,).
        rows: T gradients.
    """
    return [_weighted_part(weights, [row[index] for row in rows]) for index in range(len(rows[0]))]


def _weighted_part(weights: Sequence[float], parts: Sequence[Tensor | None]) -> Tensor | None:
    terms = [(weight, part) for weight, part in zip(weights, parts, strict=True) if part is not None]
    if not terms:
        return None
    (weight, first), *others = terms
    total = first if weight == 1 and not others else first * weight
    for weight, part in others:
        total.add_(part, alpha=weight)
    return total
