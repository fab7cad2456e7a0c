"""Multi-objective gradient with double sampling (Chen, Fernando, Ying & Chen, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from paretorch.balance.parts.simplex_weights import present_weights, with_present_weights
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_at_least
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.projections import project_on_simplex


class MoDoState(NamedTuple):
    """``weights`` (all,): w on the simplex."""

    weights: Tensor


@dataclass(frozen=True)
class MoDo(Method[MoDoState]):
    r"""A projected gradient step of the weights of the common descent direction, from two batches; a third gives the update.

    .. math:: w \leftarrow \mathrm{Proj}_{\text{simplex}} \big( w - \gamma (J_1 J_2^T + \rho I) w \big), \qquad d = J_3^T w

    Inner products of gradients of one batch are biased by their common noise; inner products between two batches are unbiased.
    The steps of the weights are proportional to squared gradient lengths, so that the update is not homogeneous of degree one
    in the gradients. For a :class:`~paretorch.Balancer` only.

    Args:
        gamma: step size of the weights, above 0.
        rho: regularization of the weights, at least 0.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> first, second, third = ({"a": (s * shared).square().sum(), "b": (shared - s).square().sum()} for s in (1, 2, 3))
        >>> pt.Balancer(pt.MoDo()).backward(third, others=(first, second)).weights
        tensor([0.9780, 1.0220], dtype=torch.float64)

    References:
        Chen, Fernando, Ying & Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and
        Conflict-Avoidance", NeurIPS 2023, Algorithm 1.
    """

    gamma: float = 1e-3
    rho: float = 0.1
    needs = Need.GRAMIAN
    homogeneous = False
    batches = 3
    features = False
    search_space: ClassVar[SearchSpace] = {"gamma": Range(1e-5, 1.0, log=True), "rho": Range(0.0, 1.0)}

    def __post_init__(self) -> None:
        check_above("gamma", self.gamma)
        check_at_least("rho", self.rho)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> MoDoState:
        return MoDoState(like.new_full((len(tasks),), 1 / len(tasks)))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: MoDoState) -> tuple[Balance, MoDoState]:
        weights = present_weights(state.weights, evidence.present)
        slope = evidence.needed("cross") @ weights + self.rho * weights
        weights = project_on_simplex(weights - self.gamma * slope)
        return Balance(weights), MoDoState(with_present_weights(state.weights, evidence.present, weights))
