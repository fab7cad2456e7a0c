"""MGDA from N initial models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence


@dataclass(frozen=True)
class MGDAStarts(FrontAlgorithm):
    r"""Every member descends along the shortest convex combination of its task gradients; preferences only determine
    their number.

    .. math:: w_i = \arg\min_{w \ge 0,\, 1^T w = 1} \Big\lVert \sum_t w_t \nabla L_t(\theta_i) \Big\rVert

    Use ``starts="independent"``: with common initial weights all members are equal.

    Example:
        >>> MGDAStarts().needs_gramian
        True

    References:
        Desideri, "Multiple-gradient descent algorithm for multiobjective optimization", Comptes Rendus 2012.
    """

    needs_gramian = True

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) minimum-norm weights."""
        assert evidence.gramian is not None
        return torch.stack(
            [
                minimum_norm(gramian).weights
                if bool(gramian.isfinite().all())
                else torch.full_like(gramian[0], torch.nan)
                for gramian in evidence.gramian
            ]
        )
