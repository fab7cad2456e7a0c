"""The sum of the logarithms of the losses."""

from __future__ import annotations

from dataclasses import dataclass

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.contract import Balance, Evidence, Method, Need

EPS = 1e-8


@dataclass(frozen=True)
class ScaleInvariant(Method[None]):
    r"""The sum of the log-losses, which does not depend on the units of the losses.

    .. math:: \sum_t \log(L_t + \epsilon), \qquad w_t = \frac{1}{L_t + \epsilon}, \quad \epsilon = 10^{-8}

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> pt.weights(pt.ScaleInvariant(), losses=torch.tensor([2.0, 0.5]))
        tensor([0.5000, 2.0000], dtype=torch.float64)

    References:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, section 5.1, as the baseline "SI".
    """

    needs = Need.LOSSES

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return Balance(1 / (losses_above(evidence, 0.0, "ScaleInvariant") + EPS)), state
