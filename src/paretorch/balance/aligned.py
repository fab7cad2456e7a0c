"""Independent component alignment (Senushkin, Patakin, Kuznetsov & Konushin, CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_choice
from paretorch.core.search_space import Choice, SearchSpace

MODES = ("min", "median", "rmse")
MANY = 64  # from this number of tasks on, torch is faster than NumPy


@dataclass(frozen=True)
class AlignedMTL(Method[None]):
    r"""The sum of the gradients after all principal components of their matrix are scaled to equal length.

    .. math:: G = V \Lambda V^T, \qquad w = \sqrt{\lambda} \; V \Lambda^{-1/2} V^T 1

    over the eigenvalues above rounding, with lambda the least of them, their (lower) median, or their mean.

    With ``"min"`` the update is discontinuous: equal gradients g give T g, but nearly equal ones give almost zero, since their
    difference is a component too.

    Args:
        mode: ``"min"``, ``"median"`` or ``"rmse"``: the common length of the components.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.AlignedMTL(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([1.1181, 0.8165], dtype=torch.float64)

    References:
        Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023, Algorithm 1.
        Eigenvalues are kept above T times the spacing of the numbers in which the gradients were summed.
    """

    mode: str = "min"
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"mode": Choice(MODES)}

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        size = float(gramian.diagonal().max())
        if size == 0:
            return Balance(torch.zeros(len(gramian), dtype=torch.float64), Status.STATIONARY), state
        values, vectors = _eigen(gramian / size)
        first = int(np.searchsorted(values, values[-1] * len(values) * evidence.resolution, side="right"))
        values, vectors = values[first:], vectors[:, first:]
        sums = vectors.sum(axis=0)
        weights = np.sqrt(self._level(values)) * (vectors @ (sums / np.sqrt(values)))
        # Where the gradients cancel, the vector of ones is outside the span of these eigenvectors, up to rounding.
        stationary = float(sums @ sums) <= len(gramian) * len(gramian) * evidence.resolution
        status = Status.STATIONARY if stationary else Status.SOLVED
        return Balance(torch.from_numpy(np.zeros_like(weights) if stationary else weights), status), state

    def _level(self, values: Array) -> float:
        if self.mode == "min":
            return float(values[0])
        return float(values[(len(values) - 1) // 2] if self.mode == "median" else values.mean())


def _eigen(matrix: Tensor) -> tuple[Array, Array]:
    """(T,) increasing eigenvalues and (T, T) eigenvectors as columns, by the library that is faster at this size."""
    if len(matrix) < MANY:
        values, vectors = np.linalg.eigh(matrix.numpy())
        return values, vectors
    found = torch.linalg.eigh(matrix)
    return found.eigenvalues.numpy(), found.eigenvectors.numpy()
