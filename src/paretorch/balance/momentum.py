"""Another method applied to running means of the task gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.stored_gradients import mean_gramian, stored_rows
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_fraction


class MomentumState(NamedTuple):
    """``means`` (all, n): no columns before the first step; ``seen`` (all,): 1 for tasks with a mean; ``inner``: the method's."""

    means: Tensor
    seen: Tensor
    inner: Any


@dataclass(frozen=True)
class Momentum(Method[MomentumState]):
    r"""Another method applied to running means of the task gradients.

    .. math:: y_t \leftarrow \beta y_t + (1 - \beta) g_t, \qquad d = \mathrm{method}(y_1, \dots, y_T)

    Each mean starts as the first gradient of its task. On noisy batches many conflicts between gradients are noise, which means
    reduce. The state has T x n numbers. For a :class:`~paretorch.Balancer` only.

    Args:
        method: a method that uses the Gramian or the Jacobian of one batch.
        beta: weight of the previous mean, in [0, 1).

    Example:
        >>> import paretorch as pt
        >>> balancer = pt.Balancer(Momentum(pt.CAGrad(c=0.4), beta=0.9))

    References:
        Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning", ICLR 2023, Algorithm 1, for the means.
    """

    method: Method[Any]
    beta: float = 0.9
    needs = Need.JACOBIAN
    homogeneous = False  # in the gradients of one step
    features = False

    def __post_init__(self) -> None:
        inner = self.method
        if not isinstance(inner, Method) or inner.needs == Need.LOSSES or inner.batches > 1 or inner.observes:
            raise ValueError(f"Momentum takes a method that uses the gradients of one batch, got {inner!r}")
        check_fraction("beta", self.beta)
        object.__setattr__(self, "needs", Need.JACOBIAN | (inner.needs & Need.LOSSES))
        object.__setattr__(self, "random", inner.random)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> MomentumState:
        inner = self.method.init(tasks, like)
        return MomentumState(like.new_zeros(len(tasks), 0), like.new_zeros(len(tasks)), inner)

    def gain(self, tasks: int) -> float:
        return self.method.gain(tasks)

    def balance(self, evidence: Evidence, state: MomentumState) -> tuple[Balance, MomentumState]:
        evidence, state = self._averaged(evidence, state)
        return self._combined(evidence, state, *self.method.balance(evidence, state.inner))

    def calibrated(self, evidence: Evidence, state: MomentumState) -> tuple[Balance, MomentumState]:
        evidence, state = self._averaged(evidence, state)
        return self._combined(evidence, state, *self.method.calibrated(evidence, state.inner))

    def end_epoch(self, state: MomentumState) -> MomentumState:
        return state._replace(inner=self.method.end_epoch(state.inner))

    def _averaged(self, evidence: Evidence, state: MomentumState) -> tuple[Evidence, MomentumState]:
        """The evidence of the updated means, and the state with them."""
        present, jacobian = evidence.present, evidence.needed("jacobian")
        means, begun = stored_rows(state.means, evidence), state.seen.to("cpu", torch.float64, copy=True)
        new = torch.where(begun[present] > 0, 1 - self.beta, 1.0).to(jacobian)
        here = present.to(jacobian.device)
        rows = torch.lerp(means[here], jacobian, new[:, None])
        means[here] = rows
        begun[present] = 1.0
        gramian = mean_gramian(rows, evidence)
        return replace(evidence, gramian=gramian, jacobian=rows), MomentumState(means, begun, state.inner)

    def _combined(
        self, evidence: Evidence, state: MomentumState, balance: Balance, inner: Any
    ) -> tuple[Balance, MomentumState]:
        """The method's weights applied to the means."""
        rows, update = evidence.needed("jacobian"), balance.update
        if update is None:
            assert balance.weights is not None
            update = balance.weights.to(rows) @ rows
        return Balance(None, balance.status, update, heads=balance.heads), state._replace(inner=inner)
