"""Agreement of a method's weights on the features with its weights on the shared parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.core.contract import Method, Need
from paretorch.core.gradients.gap import gap_between
from paretorch.core.method.weights import weights
from paretorch.diagnosis.results import Prediction


def prediction(method: Method[Any], on_features: Array, on_parameters: Array, losses: Array) -> Prediction | None:
    """How well the weights on the features predict those on the parameters.

    Args:
        method: a method that gives weights from inner products.
        on_features: (K, T, T) inner products by batch.
        on_parameters: (K, T, T) the same on the shared parameters.
        losses: (K, T) loss values.

    Returns:
        None where no batch gives weights on both.
    """
    if Need.JACOBIAN in method.needs or method.batches > 1 or Need.GRAMIAN not in method.needs:
        return None
    pairs, cosines = [], []
    for features, parameters, values in zip(on_features, on_parameters, losses, strict=True):
        if not (np.diagonal(features) > 0).all() or not (np.diagonal(parameters) > 0).all():
            continue
        given = torch.from_numpy(values) if Need.LOSSES in method.needs else None
        found = [weights(method, torch.from_numpy(gramian), given).numpy() for gramian in (features, parameters)]
        if any(not np.isfinite(each).all() or abs(each.sum()) <= 1e-12 * np.abs(each).sum() for each in found):
            continue
        scaled = [each / each.mean() for each in found]
        pairs.append(scaled)
        cosines.append(gap_between(parameters, *scaled)["cosine"])
    if not pairs:
        return None
    one, other = (np.stack([pair[place] for pair in pairs]) for place in (0, 1))
    varies = one.std() > 1e-9 and other.std() > 1e-9
    correlation = float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if varies else math.nan
    finite = [cosine for cosine in cosines if math.isfinite(cosine)]
    cosine = sum(finite) / len(finite) if finite else math.nan
    return Prediction(float(np.abs(one - other).mean()), correlation, cosine, len(pairs))
