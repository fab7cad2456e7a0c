"""Multi-objective gradient correction (Fernando, Shen, Liu, Chaudhury, Murugesan & Chen, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.ranges import above, at_least, share
from paretorch.balance.parts.simplex_weights import of_present, put_back
from paretorch.balance.parts.task_rows import gramian_of, kept_rows
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.minimum_norm import project_on_simplex


class MoCoState(NamedTuple):
    """``tracked`` (all, n): y, no columns before the first step; ``seen`` (all,): 1 where it has begun; ``weights`` (all,)."""

    tracked: Tensor
    seen: Tensor
    weights: Tensor


@dataclass(frozen=True)
class MoCo(Method[MoCoState]):
    r"""Follows every task's gradient by a running mean, and the common descent direction by small steps of its weights.

    .. math:: y \leftarrow y - \beta (y - J), \qquad
              w \leftarrow \mathrm{Proj}_{\text{simplex}} \big( w - \gamma (y y^T + \rho I) w \big), \qquad d = y^T w

    y begins as the first J, w as 1/T. The state holds T x n numbers, and the weights move by the squared length of the
    gradients: this method is not of degree one in them. For a :class:`~paretorch.Balancer` only.

    Args:
        beta: weight of the new gradient, in (0, 1].
        gamma: step of the weights, above 0.
        rho: regularization of the weights, at least 0.

    References:
        Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach", ICLR 2023,
        Algorithm 1. Their code takes a softmax of the last weights in place of the projection.
    """

    beta: float = 0.5
    gamma: float = 0.1
    rho: float = 0.0
    needs = Need.JACOBIAN
    homogeneous = False
    features = False
    search_space: ClassVar[SearchSpace] = {"beta": Range(0.05, 1.0, log=True), "gamma": Range(1e-3, 10.0, log=True)}

    def __post_init__(self) -> None:
        share("beta", self.beta, "(]")
        above("gamma", self.gamma)
        at_least("rho", self.rho)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> MoCoState:
        size = len(tasks)
        return MoCoState(like.new_zeros(size, 0), like.new_zeros(size), like.new_full((size,), 1 / size))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: MoCoState) -> tuple[Balance, MoCoState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        here = present.to(jacobian.device)
        tracked, seen = kept_rows(state.tracked, evidence), state.seen.clone()
        share = torch.where(seen[present.to(seen.device)] > 0, self.beta, 1.0).to(jacobian)
        rows = torch.lerp(tracked[here], jacobian, share[:, None])
        tracked[here] = rows
        seen[present.to(seen.device)] = 1.0
        gramian, weights = gramian_of(rows, evidence), of_present(state.weights, present)
        weights = project_on_simplex(weights - self.gamma * (gramian @ weights + self.rho * weights))
        state = MoCoState(tracked, seen, put_back(state.weights, present, weights))
        return Balance(None, Status.SOLVED, weights.to(rows) @ rows), state
