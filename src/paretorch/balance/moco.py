"""Multi-objective gradient correction (Fernando, Shen, Liu, Chaudhury, Murugesan & Chen, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.simplex_weights import present_weights, with_present_weights
from paretorch.balance.parts.stored_gradients import mean_gramian, stored_rows
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_above, check_at_least, check_fraction
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.projections import project_on_simplex


class MoCoState(NamedTuple):
    """``tracked`` (all, n): y, no columns before the first step; ``seen`` (all,): 1 for tasks with a y; ``weights`` (all,): w."""

    tracked: Tensor
    seen: Tensor
    weights: Tensor


@dataclass(frozen=True)
class MoCo(Method[MoCoState]):
    r"""A running mean of every task's gradient, and projected gradient steps of the weights of their common descent direction.

    .. math:: y \leftarrow y - \beta (y - J), \qquad
              w \leftarrow \mathrm{Proj}_{\text{simplex}} \big( w - \gamma (y y^T + \rho I) w \big), \qquad d = y^T w

    y starts as the first J, w as 1/T. The state has T x n numbers. The steps of the weights are proportional to squared gradient
    lengths, so that the update is not homogeneous of degree one in the gradients. For a :class:`~paretorch.Balancer` only.

    Args:
        beta: weight of the new gradient, in (0, 1].
        gamma: step size of the weights, above 0.
        rho: regularization of the weights, at least 0.

    Example:
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> balance = pt.Balancer(pt.MoCo()).backward({"a": shared.square().sum(), "b": (shared - 3).square().sum()})
        >>> shared.grad
        tensor([-2.,  2.])

    References:
        Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach", ICLR 2023,
        Algorithm 1. Their code uses a softmax of the last weights instead of the projection.
    """

    beta: float = 0.5
    gamma: float = 0.1
    rho: float = 0.0
    needs = Need.JACOBIAN
    homogeneous = False
    features = False
    search_space: ClassVar[SearchSpace] = {"beta": Range(0.05, 1.0, log=True), "gamma": Range(1e-3, 10.0, log=True)}

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta, "(]")
        check_above("gamma", self.gamma)
        check_at_least("rho", self.rho)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> MoCoState:
        size = len(tasks)
        return MoCoState(like.new_zeros(size, 0), like.new_zeros(size), like.new_full((size,), 1 / size))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: MoCoState) -> tuple[Balance, MoCoState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        here = present.to(jacobian.device)
        tracked, begun = stored_rows(state.tracked, evidence), state.seen.clone()
        share = torch.where(begun[present.to(begun.device)] > 0, self.beta, 1.0).to(jacobian)
        rows = torch.lerp(tracked[here], jacobian, share[:, None])
        tracked[here] = rows
        begun[present.to(begun.device)] = 1.0
        gramian, weights = mean_gramian(rows, evidence), present_weights(state.weights, present)
        weights = project_on_simplex(weights - self.gamma * (gramian @ weights + self.rho * weights))
        state = MoCoState(tracked, begun, with_present_weights(state.weights, present, weights))
        return Balance(None, Status.SOLVED, weights.to(rows) @ rows), state
