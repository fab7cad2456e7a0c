"""Stochastic direction-oriented multi-objective gradient descent (Xiao, Ban & Ji, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.ranges import at_least
from paretorch.balance.parts.simplex_weights import of_present, put_back
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.minimum_norm import simplex_point

ITERATIONS, STEP, MOMENTUM = 20, 10.0, 0.5


class SDMGradState(NamedTuple):
    """``weights`` (all,): w on the simplex, where the next step goes on."""

    weights: Tensor


@dataclass(frozen=True)
class SDMGrad(Method[SDMGradState]):
    r"""The common descent direction, drawn towards the mean gradient, by projected gradient steps of its weights.

    .. math:: \min_{w \in \text{simplex}} \tfrac{1}{2} \lVert J^T w + \lambda g_0 \rVert^2, \qquad
              d = \frac{J^T w + \lambda g_0}{1 + \lambda}

    with g_0 the mean gradient. In each step 20 times v <- v/2 + (G w + lambda G 1/T), w <- Proj(w - 10 v), on gradients in
    units of their mean length; w goes on from step to step, v begins at zero.

    Args:
        lam: lambda, at least 0.
        batches: 1, or 3 for the paper's double sampling: the gradient in w is then an unbiased estimate, from inner products
            of gradients on a first with those on a second batch; the third is the one that the step descends.

    Example:
        >>> from paretorch.core.method.weights import weights
        >>> weights(SDMGrad(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000], dtype=torch.float64)

    References:
        Xiao, Ban & Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms", NeurIPS 2023,
        Algorithm 1. The authors' code overwrites its first two batches with the third, and so never samples twice.
    """

    lam: float = 0.3
    batches: int = 1  # type: ignore[misc]
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"lam": Range(0.0, 10.0)}

    def __post_init__(self) -> None:
        at_least("lam", self.lam)
        if self.batches not in (1, 3):
            raise ValueError(f"batches is 1, or 3 for double sampling, got {self.batches}")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> SDMGradState:
        return SDMGradState(like.new_full((len(tasks),), 1 / len(tasks)))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: SDMGradState) -> tuple[Balance, SDMGradState]:
        own = evidence.needed("gramian").numpy()
        products = own if self.batches == 1 else evidence.needed("cross").numpy()
        weights = of_present(state.weights, evidence.present).numpy()
        size = float(own.diagonal().clip(min=0.0) ** 0.5 @ (0 * weights + 1 / len(weights)))
        if size == 0:
            return Balance(torch.from_numpy(weights), Status.STATIONARY), state
        matrix = products / size / size
        pull, velocity = self.lam * matrix.mean(axis=1), 0.0 * weights
        for _ in range(ITERATIONS):
            velocity = MOMENTUM * velocity + matrix @ weights + pull
            weights = simplex_point(weights - STEP * velocity)
        held = torch.from_numpy(weights)
        kept = SDMGradState(put_back(state.weights, evidence.present, held))
        return Balance((held + self.lam / len(weights)) / (1 + self.lam)), kept
