"""The geometric mean of the losses (Chennupati et al., CVPR workshops 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.contract import Balance, Evidence, Method, Need


@dataclass(frozen=True)
class GeometricMean(Method[None]):
    r"""The geometric mean of the losses, for which equal relative improvements of all tasks count equally.

    .. math:: L = \Big( \prod_t L_t \Big)^{1/T}, \qquad w_t = \frac{\partial L}{\partial L_t} = \frac{L}{T \, L_t}

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.GeometricMean(), losses=torch.tensor([4.0, 1.0]))
        tensor([0.2500, 1.0000], dtype=torch.float64)

    References:
        Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task Learning",
        CVPR workshops 2019, the geometric loss strategy. We compute the mean of the logarithms: the product leaves the range of
        floating point for a few dozen tasks.
    """

    needs = Need.LOSSES

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        logs = torch.log(losses_above(evidence, 0.0, "GeometricMean"))
        return Balance(torch.exp(logs.mean() - logs) / len(logs)), state
