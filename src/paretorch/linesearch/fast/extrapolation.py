"""From the displacement of some samples' features to that of the whole batch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_map

FEWEST = 16  # samples from which the displacement of a batch is told
MORE = 32  # the same, where they depend on each other or on random draws


def samples_of(batch: int, samples: float | None, depend: bool) -> int | None:
    """How many samples tell the displacement of a batch; None: all of them.

    Args:
        batch: B.
        samples: a number, a part of the batch, or None.
        depend: whether samples depend on each other or on random draws; in a small batch they are then others.

    Example:
        >>> samples_of(256, 0.125, False), samples_of(64, 0.125, False), samples_of(64, 0.125, True)
        (32, 16, 32)
    """
    if samples is None:
        return None
    if samples >= 1:
        return int(samples)
    return max(MORE if depend else FEWEST, round(samples * batch))


def rows_are_samples(inputs: Any, features: Sequence[Tensor]) -> bool:
    """Whether inputs and features have the same number of rows, so that the first rows of both may be the first samples.

    Not so where tokens are flattened into rows, in packed sequences, in graphs with a list of edges, and where a leaf of the
    features has another number of rows.

    Args:
        inputs: of the encoder, whatever their nesting.
        features: its leaves.
    """
    parts = tree_flatten(inputs, is_leaf=lambda part: isinstance(part, PackedSequence))[0]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim > 0]
    if any(isinstance(part, PackedSequence) or _is_ragged(part) for part in parts) or not tensors:
        return False
    batch = len(tensors[0])
    # integers in another number of rows may count samples, as the edges of a graph do
    if any(len(part) != batch and not part.is_floating_point() and part.dtype != torch.bool for part in tensors):
        return False
    return all(leaf.ndim >= 2 and not _is_ragged(leaf) and len(leaf) == batch for leaf in features)


def _is_ragged(part: Any) -> bool:
    return isinstance(part, Tensor) and (part.is_nested or part.layout is not torch.strided)


def first_rows(inputs: Any, batch: int, samples: int) -> Any:
    """The first samples of a batch, whatever its nesting: views of every tensor whose first dimension is the batch's."""

    def cut(leaf: Any) -> Any:
        return leaf[:samples] if isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == batch else leaf

    return tree_map(cut, inputs)


def extrapolated(features: Sequence[Tensor], base: Sequence[Tensor], displacement: Sequence[Tensor]) -> list[Tensor]:
    r"""The displacement of all samples from that of the first ones.

    .. math:: q_{ic} = [z_{ic} \ne 0] (a_c + b_c z_{ic})

    with a_c, b_c of every channel by least squares over the samples (and places) whose feature is not zero: a unit that is
    switched off does not move.

    Args:
        features: (B, C, ...) leaves of the whole batch.
        base: (S, C, ...) the same of the first samples, as they were when displaced.
        displacement: (S, C, ...) of these.

    Returns:
        (B, C, ...) leaves; the first S rows are those given.
    """
    return [_leaf(z.detach(), own.detach(), q) for z, own, q in zip(features, base, displacement, strict=True)]


def _leaf(features: Tensor, base: Tensor, displacement: Tensor) -> Tensor:
    over = [0, *range(2, base.ndim)]
    there = (base != 0).to(base.dtype)
    count = there.sum(dim=over, keepdim=True).clamp_min(1)
    center = base.sum(dim=over, keepdim=True) / count
    mean = (displacement * there).sum(dim=over, keepdim=True) / count
    away = (base - center) * there
    spread = away.square().sum(dim=over, keepdim=True)
    slope = (away * displacement).sum(dim=over, keepdim=True) / torch.where(spread > 0, spread, 1.0)
    rest = features[len(displacement) :]
    guess = ((rest - center) * slope + mean) * (rest != 0)
    return torch.cat([displacement, guess])
