"""Multiple-gradient descent (Desideri 2012; Sener & Koltun, NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.arrays import EPS
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_choice, check_whole
from paretorch.core.search_space import Choice, SearchSpace
from paretorch.core.solvers.gramian import is_zero_combination
from paretorch.core.solvers.minimum_norm import Solution, minimum_norm

NORMALIZATIONS = (None, "l2", "loss", "loss+")
SOLVERS = ("exact", "frank-wolfe")
TOLERANCE = 1e-9  # of Frank-Wolfe: relative duality gap of the squared norm


@dataclass(frozen=True)
class MGDA(Method[None]):
    r"""The shortest convex combination of the task gradients: a direction that descends for every task, or zero.

    .. math:: w = \arg\min_{w \ge 0,\, 1^T w = 1} \Big\lVert \sum_t w_t \frac{g_t}{c_t} \Big\rVert^2

    The divisors c change the weights only; the update is the weighted sum of the original gradients.

    Args:
        normalize: c_t: None: 1; ``"l2"`` the gradient's norm; ``"loss"`` the loss; ``"loss+"`` their product.
        solver: ``"exact"``, or ``"frank-wolfe"``: Algorithm 2 of the paper, from w = 1/T.
        iterations: of Frank-Wolfe, at least 1. Where they do not suffice, the status is ``NOT_CONVERGED``.

    Raises:
        ValueError: in a step with a loss that is not above 0, if ``normalize`` uses losses.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.MGDA(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.6000, 0.4000], dtype=torch.float64)

    References:
        Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Math. 2012;
        Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, eq. (3) and Algorithm 2. Frank-Wolfe
        stops far from the minimum for many tasks; the exact solver does not.
    """

    normalize: str | None = None
    solver: str = "exact"
    iterations: int = 250
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"normalize": Choice(NORMALIZATIONS)}

    def __post_init__(self) -> None:
        check_choice("normalize", self.normalize, NORMALIZATIONS)
        check_choice("solver", self.solver, SOLVERS)
        check_whole("iterations", self.iterations)
        if self.normalize in ("loss", "loss+"):
            object.__setattr__(self, "needs", Need.GRAMIAN | Need.LOSSES)
            object.__setattr__(self, "homogeneous", False)

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        if self.normalize is not None:
            divisor = self._divisor(evidence)
            gramian = gramian / divisor[:, None] / divisor[None, :]
        weights, converged = minimum_norm(gramian) if self.solver == "exact" else frank_wolfe(gramian, self.iterations)
        # A zero combination proves stationarity, whether or not the solver converged.
        if is_zero_combination(gramian, weights, evidence.resolution):
            return Balance(weights, Status.STATIONARY), state
        return Balance(weights, Status.SOLVED if converged else Status.NOT_CONVERGED), state

    def _divisor(self, evidence: Evidence) -> Tensor:
        """(T,) the divisor of each gradient; 1 in place of the length of a zero gradient."""
        lengths = torch.where(evidence.norms > 0, evidence.norms, 1.0)
        if self.normalize == "l2":
            return lengths
        losses = losses_above(evidence, 0.0, f"MGDA(normalize={self.normalize!r})")
        return losses if self.normalize == "loss" else losses * lengths


def frank_wolfe(gramian: Tensor, iterations: int) -> Solution:
    """Minimum-norm weights by Frank-Wolfe with exact line search, from equal weights.

    Args:
        gramian: (T, T).
        iterations: the largest number of steps.

    Returns:
        The weights; converged: their duality gap proves a squared norm within 1e-9 of the minimum, relative, or within rounding.

    References:
        Sener & Koltun 2018, Algorithm 2.
    """
    matrix = gramian.numpy()
    weights = np.full(len(matrix), 1 / len(matrix))
    for _ in range(iterations):
        products = matrix @ weights
        vertex = int(products.argmin())
        share = _share(float(products[vertex]), float(weights @ products), float(matrix[vertex, vertex]))
        if share >= 1:
            break
        weights *= share
        weights[vertex] += 1 - share
    products = matrix @ weights
    square = float(weights @ products)
    gap = 2 * (square - float(products.min()))  # an upper bound of the distance of the squared norm from the minimum
    rounding = 4 * len(matrix) * EPS * float(matrix.diagonal().max())
    return Solution(torch.from_numpy(weights), gap <= max(TOLERANCE * square, rounding))


def min_norm_pair(a: Tensor, b: Tensor) -> Tensor:
    r"""The weight of ``a`` in the shortest convex combination of two gradients.

    .. math:: \gamma = \arg\min_{\gamma \in [0, 1]} \lVert \gamma a + (1 - \gamma) b \rVert^2
              = \Big[ \frac{(b - a)^T b}{\lVert a - b \rVert^2} \Big]_{[0, 1]}

    Args:
        a: a gradient of any shape.
        b: a gradient of the same shape.

    Returns:
        A scalar in [0, 1]; 1/2 if the two are equal.

    Example:
        >>> min_norm_pair(torch.tensor([-4.0, 1.0, 1.0]), torch.tensor([6.0, 1.0, 1.0]))
        tensor(0.6000)

    References:
        Sener & Koltun 2018, Algorithm 1.
    """
    if a.shape != b.shape:
        raise ValueError(f"the two gradients must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    between = (a - b).flatten()
    length = between @ between
    share = -(between @ b.flatten()) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, share.clamp(0.0, 1.0), 0.5)


def _share(cross: float, own: float, other: float) -> float:
    """The weight of the current point in its shortest convex combination with a vertex, from their inner products."""
    length = own - 2 * cross + other
    return min(max((other - cross) / length, 0.0), 1.0) if length > 0 else 1.0
