"""Displacement of a batch's features from that of its first samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_map

from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.state import EncoderProperties

FEWEST = 16  # samples
FEWEST_DEPENDENT = 32  # where they depend on each other or on random draws


def subsample_size(batch: Batch, encoder: EncoderProperties) -> tuple[int | None, EncoderProperties]:
    """Number of samples on which a displacement can be computed, and what is then known of the encoder.

    The first call runs the encoder on the samples alone.

    Returns:
        The number of samples, or None where the encoder needs the whole batch; and the properties.
    """
    dependent = batch.encoding.drew or encoder.samples_independent is False
    samples = samples_of(batch.size, batch.options.samples, dependent)
    if samples is None or (batch.features.leaves[0].ndim and samples >= len(batch.features.leaves[0])):
        return None, encoder
    undecided = encoder.samples_independent is None and not batch.encoding.drew
    if not rows_are_samples(batch.x, batch.features.leaves):
        encoder = encoder._replace(divisible=False)
    elif encoder.divisible is None or (encoder.divisible and undecided):
        encoder = _tried(samples, batch, encoder)
    if not encoder.divisible:
        return None, encoder._replace(subsample_reliable=False)  # later steps use the whole batch
    return samples, encoder


def samples_of(batch: int, samples: float | None, dependent: bool) -> int | None:
    """Number of samples of a subsample; None: all of the batch.

    Args:
        batch: B.
        samples: a number, a part of the batch, or None.
        dependent: whether samples depend on each other or on random draws, which need more of them.

    Example:
        >>> samples_of(256, 0.125, False), samples_of(64, 0.125, False), samples_of(64, 0.125, True)
        (32, 16, 32)
    """
    if samples is None:
        return None
    if samples >= 1:
        return int(samples)
    return max(FEWEST_DEPENDENT if dependent else FEWEST, round(samples * batch))


def rows_are_samples(inputs: Any, features: Sequence[Tensor]) -> bool:
    """Whether inputs and features have the same number of rows, so that the first rows of both can be the first samples.

    This excludes tokens that are flattened into rows, packed sequences, graphs with a list of edges, and features with
    another number of rows.

    Args:
        inputs: of the encoder, in any nesting.
        features: leaves of its output.
    """
    parts = tree_flatten(inputs, is_leaf=lambda part: isinstance(part, PackedSequence))[0]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim > 0]
    if any(isinstance(part, PackedSequence) or _is_ragged(part) for part in parts) or not tensors:
        return False
    batch = len(tensors[0])
    # integers in another number of rows can be indices of samples, such as the edges of a graph
    if any(len(part) != batch and not part.is_floating_point() and part.dtype != torch.bool for part in tensors):
        return False
    return all(leaf.ndim >= 2 and not _is_ragged(leaf) and len(leaf) == batch for leaf in features)


def _is_ragged(part: Any) -> bool:
    return isinstance(part, Tensor) and (part.is_nested or part.layout is not torch.strided)


def _tried(samples: int, batch: Batch, encoder: EncoderProperties) -> EncoderProperties:
    """The properties after a forward of the first samples alone."""
    replay, leaves = batch.encoding, batch.features.leaves
    try:
        with replay.without_graph(), nullcontext() if replay.drew else replay.batch_norm.on_subsample(samples):
            alone = batch.features.leaves_of(batch.parts.encoder(first_rows(batch.x, len(leaves[0]), samples)))
    except Exception:  # anything that couples the samples, such as the edges of a graph or a state of the batch's size
        return encoder._replace(divisible=False)
    pairs = list(zip(alone, leaves, strict=True))
    divisible = all(one.ndim > 0 and one.shape == leaf[:samples].shape for one, leaf in pairs)
    if not divisible or encoder.samples_independent is not None or replay.drew:
        return encoder._replace(divisible=divisible)
    independent = all(
        torch.allclose(one, leaf[:samples].detach(), rtol=1e-3, atol=1e-4 * float(leaf.detach().abs().max()))
        for one, leaf in pairs
    )
    return encoder._replace(divisible=divisible, samples_independent=independent)


def first_rows(inputs: Any, batch: int, samples: int) -> Any:
    """The first samples of a batch, in any nesting: views of every tensor whose first dimension is the batch's."""

    def cut(leaf: Any) -> Any:
        return leaf[:samples] if isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == batch else leaf

    return tree_map(cut, inputs)


def extrapolated(features: Sequence[Tensor], base: Sequence[Tensor], displacement: Sequence[Tensor]) -> list[Tensor]:
    r"""The displacement of all samples from that of the first ones.

    .. math:: q_{ic} = [z_{ic} \ne 0] (a_c + b_c z_{ic})

    with a_c, b_c of every channel by least squares over the samples (and positions) whose feature is not zero: a unit that
    is switched off does not move.

    Args:
        features: (B, C, ...) leaves of the whole batch.
        base: (S, C, ...) leaves of the first samples, before the displacement.
        displacement: (S, C, ...) of these.

    Returns:
        (B, C, ...) leaves; the first S rows are those given.
    """
    return [_extrapolated(z.detach(), own.detach(), q) for z, own, q in zip(features, base, displacement, strict=True)]


def _extrapolated(features: Tensor, base: Tensor, displacement: Tensor) -> Tensor:
    dims = [0, *range(2, base.ndim)]
    active = (base != 0).to(base.dtype)
    count = active.sum(dim=dims, keepdim=True).clamp_min(1)
    center = base.sum(dim=dims, keepdim=True) / count
    mean = (displacement * active).sum(dim=dims, keepdim=True) / count
    deviation = (base - center) * active
    variation = deviation.square().sum(dim=dims, keepdim=True)
    slope = (deviation * displacement).sum(dim=dims, keepdim=True) / torch.where(variation > 0, variation, 1.0)
    others = features[len(displacement) :]
    fitted = ((others - center) * slope + mean) * (others != 0)
    return torch.cat([displacement, fitted])
