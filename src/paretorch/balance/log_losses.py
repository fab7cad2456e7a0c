"""Another method applied to the gradients of the log-losses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.contract import Balance, Evidence, Method, Need


@dataclass(frozen=True)
class LogLosses(Method[Any]):
    r"""Another method applied to the gradients of log L_t, so that its weights do not depend on the units of the losses.

    .. math:: g_t' = g_t / L_t, \qquad d = \sum_t w_t g_t', \quad w = \mathrm{method}(g')

    With a :class:`~paretorch.Balancer` each head minimizes its log-loss too; a head after a :class:`~paretorch.Fork` receives the
    gradient of its loss.

    Args:
        method: a method that uses the Gramian or the Jacobian of one batch. If it also uses losses, it receives L_t, not log L_t.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> gramian = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> pt.weights(LogLosses(pt.MGDA()), gramian, losses=torch.tensor([1.0, 2.0]))
        tensor([0.2000, 0.4000], dtype=torch.float64)

    References:
        Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, section 3.1, for the logarithm.
    """

    method: Method[Any]
    needs = Need.GRAMIAN | Need.LOSSES
    homogeneous = False

    def __post_init__(self) -> None:
        inner = self.method
        if not isinstance(inner, Method) or inner.needs == Need.LOSSES or inner.batches > 1 or inner.observes:
            raise ValueError(
                f"LogLosses takes a method that uses the gradients of one batch, got {inner!r}. For the sum of log-losses "
                "use ScaleInvariant()"
            )
        object.__setattr__(self, "needs", inner.needs | Need.LOSSES)
        for name in ("random", "features"):
            object.__setattr__(self, name, getattr(inner, name))

    def init(self, tasks: tuple[str, ...], like: Tensor) -> Any:
        return self.method.init(tasks, like)

    def gain(self, tasks: int) -> float:
        return self.method.gain(tasks)

    def balance(self, evidence: Evidence, state: Any) -> tuple[Balance, Any]:
        evidence, inverse = self._of_logs(evidence)
        return _applied(inverse, *self.method.balance(evidence, state))

    def calibrated(self, evidence: Evidence, state: Any) -> tuple[Balance, Any]:
        evidence, inverse = self._of_logs(evidence)
        return _applied(inverse, *self.method.calibrated(evidence, state))

    def end_epoch(self, state: Any) -> Any:
        return self.method.end_epoch(state)

    def _of_logs(self, evidence: Evidence) -> tuple[Evidence, Tensor]:
        """The evidence of the log-losses, and (T,) the factors of the gradients."""
        inverse = 1 / losses_above(evidence, 0.0, "LogLosses")
        gramian, jacobian = evidence.gramian, evidence.jacobian
        if gramian is not None:
            gramian = gramian * inverse[:, None] * inverse
        if jacobian is not None:
            jacobian = jacobian * inverse.to(jacobian)[:, None]
        return replace(evidence, gramian=gramian, jacobian=jacobian), inverse


def _applied(inverse: Tensor, balance: Balance, state: Any) -> tuple[Balance, Any]:
    """The weights for the gradients of the losses."""
    weights = None if balance.weights is None else balance.weights * inverse
    heads = inverse if balance.heads is None else balance.heads * inverse
    return Balance(weights, balance.status, balance.update, heads=heads), state
