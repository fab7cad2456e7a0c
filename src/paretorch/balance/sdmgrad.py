"""Stochastic direction-oriented multi-objective gradient descent (Xiao, Ban & Ji, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.simplex_weights import present_weights, with_present_weights
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_at_least, check_whole
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.projections import project_array_on_simplex

ITERATIONS, STEP, MOMENTUM = 20, 10.0, 0.5


class SDMGradState(NamedTuple):
    """``weights`` (all,): w on the simplex, from which the next step starts."""

    weights: Tensor


@dataclass(frozen=True)
class SDMGrad(Method[SDMGradState]):
    r"""The common descent direction, regularized towards the mean gradient, by projected gradient steps of its weights.

    .. math:: \min_{w \in \text{simplex}} \tfrac{1}{2} \lVert J^T w + \lambda g_0 \rVert^2, \qquad
              d = \frac{J^T w + \lambda g_0}{1 + \lambda}

    with g_0 the mean gradient. A step has 20 iterations v <- v/2 + (G w + lambda G 1/T), w <- Proj(w - 10 v), on gradients in
    units of their mean length. w starts from the last step, v from zero.

    Args:
        lam: lambda, at least 0.
        batches: 1, or 3 for the paper's double sampling: the gradient with respect to w is then an unbiased estimate, from inner
            products of the gradients of a first and a second batch; the third batch gives the update.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.SDMGrad(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000], dtype=torch.float64)

    References:
        Xiao, Ban & Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms", NeurIPS 2023,
        Algorithm 1. The authors' code overwrites its first two batches with the third, so that it does not sample twice.
    """

    lam: float = 0.3
    batches: int = 1  # type: ignore[misc]
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"lam": Range(0.0, 10.0)}

    def __post_init__(self) -> None:
        check_at_least("lam", self.lam)
        check_whole("batches", self.batches)
        if self.batches not in (1, 3):
            raise ValueError(f"batches is 1, or 3 for double sampling, got {self.batches}")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> SDMGradState:
        return SDMGradState(like.new_full((len(tasks),), 1 / len(tasks)))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: SDMGradState) -> tuple[Balance, SDMGradState]:
        own = evidence.needed("gramian").numpy()
        products = own if self.batches == 1 else evidence.needed("cross").numpy()
        weights = present_weights(state.weights, evidence.present).numpy()
        size = float(own.diagonal().clip(min=0.0) ** 0.5 @ (0 * weights + 1 / len(weights)))
        if size == 0:
            return Balance(torch.from_numpy(weights), Status.STATIONARY), state
        matrix = products / size / size
        pull, velocity = self.lam * matrix.mean(axis=1), 0.0 * weights
        for _ in range(ITERATIONS):
            velocity = MOMENTUM * velocity + matrix @ weights + pull
            weights = project_array_on_simplex(weights - STEP * velocity)
        shares = torch.from_numpy(weights)
        kept = SDMGradState(with_present_weights(state.weights, evidence.present, shares))
        return Balance((shares + self.lam / len(weights)) / (1 + self.lam)), kept
