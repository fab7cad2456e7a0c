"""Multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from paretorch.balance.fairgrad import FairGrad
from paretorch.core.contract import Balance, Evidence, Method, Need

_BARGAIN = FairGrad(alpha=1.0)


@dataclass(frozen=True)
class NashMTL(Method[None]):
    r"""The Nash bargaining solution among the tasks, whose utilities are the inner products with the update.

    .. math:: G w = 1 / w, \; w > 0: \qquad d = \arg\max_{\lVert d \rVert \le \sqrt{T}} \sum_t \log \langle g_t, d \rangle

    The direction does not depend on the lengths of the gradients. The system has one solution unless zero is in the convex hull
    of the gradients; then the status is STATIONARY, and the cosines get a ridge of 1e-6. A zero gradient gets weight 0.

    The calibrated update is homogeneous of degree one in the gradients; at the paper's scale its length is the square root of T.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> pt.weights(pt.NashMTL(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.5915, 0.4071], dtype=torch.float64)

    References:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, claim 3.1. They iterate over convex
        programs, and their code returns the last but one iterate; we solve to a residual of 1e-10 by Newton's method. Their
        scripts also weight the heads (``heads="weighted"``), and use the weights in several steps (``every=``).
    """

    needs = Need.GRAMIAN
    homogeneous_on_paper = False

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return _BARGAIN.balance(evidence, state)

    def calibrated(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return _BARGAIN.calibrated(evidence, state)
