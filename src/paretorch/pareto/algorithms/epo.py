"""Exact Pareto optimal search (Mahapatra & Rajan, ICML 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.algorithms.linear_program import best_weights, solver


@dataclass(frozen=True)
class EPO(FrontAlgorithm):
    r"""Each member converges to the point of the front with equal weighted losses, on the ray of its preference.

    .. math:: \hat L_t = \frac{w_t L_t}{\sum_s w_s L_s}, \quad \mu = \sum_t \hat L_t \log(T \hat L_t), \quad
              a_t = w_t (\log(T \hat L_t) - \mu)

    While mu, the distance from the ray, is above its tolerance, the weights on the simplex maximise beta^T C a, C the inner
    products, so that the step turns the losses towards the ray: the worst loss must not increase, and others increase no faster
    than a allows. On the ray, they maximise the sum of all decreases, and no loss may increase. Losses are at least zero,
    preferences above zero. SciPy solves the programs: ``pip install 'paretorch[fronts]'``.

    Args:
        tolerance: of mu, above 0.

    Example:
        >>> EPO().needs_gramian
        True

    References:
        Mahapatra & Rajan, "Multi-task learning with user preferences: gradient descent with controlled ascent in Pareto
        optimization", ICML 2020, eq. (24)-(25). If the program has no solution, ours uses the minimum-norm weights; C is divided
        by its largest entry, which does not change the solution.
    """

    tolerance: float = 1e-6

    needs_gramian = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"tolerance is above 0, got {self.tolerance}")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Checks that preferences are above zero, since others have no ray, and that SciPy is installed."""
        solver()
        if float(preferences.min()) <= 0:
            raise ValueError(
                f"EPO needs preferences above 0 for each of {tasks}: a task of weight zero has no ray. "
                "preferences(..., margin=0.05) keeps away from the corners"
            )

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) weights of sum T."""
        assert evidence.gramian is not None
        if bool((evidence.losses < 0).any()):
            raise ValueError(
                f"EPO needs losses of at least 0, got {evidence.losses.min().item():.4g}: add a constant to them"
            )
        rows = zip(evidence.losses, evidence.preferences, evidence.gramian, strict=True)
        return torch.stack([self._member(*row) for row in rows])

    def _member(self, losses: Tensor, preference: Tensor, gramian: Tensor) -> Tensor:
        tasks = len(losses)
        size = float(gramian.abs().max())
        if not (bool(gramian.isfinite().all()) and bool(losses.isfinite().all())):
            return torch.full_like(preference, torch.nan)
        if size == 0 or float((preference * losses).sum()) == 0:
            return torch.full_like(preference, 1.0)
        products = gramian.numpy() / size
        anchor, distance, worst = _anchor(losses.numpy(), preference.numpy())
        pulls = products @ anchor
        if distance > self.tolerance:
            free = pulls > 0
            least = np.where(free, -np.inf, pulls) if free.any() else np.zeros(tasks)
            least[worst] = 0.0  # without free tasks, it is zero already
            found = best_weights(pulls, products, least)
        else:
            found = best_weights(products.sum(axis=0), products, np.zeros(tasks))
        weights = minimum_norm(gramian).weights if found is None else torch.from_numpy(found)
        return tasks * weights


def _anchor(losses: Array, preference: Array) -> tuple[Array, float, Array]:
    """(T,) the direction a, the distance mu from the ray, and (T,) the mask of the largest weighted losses."""
    weighted = preference * losses
    share = weighted / weighted.sum()
    logs = np.log(np.maximum(share * len(share), 1e-300))
    distance = float(share @ logs)
    return preference * (logs - distance), distance, weighted >= weighted.max() * (1 - 1e-12)
