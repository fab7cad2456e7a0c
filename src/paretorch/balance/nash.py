"""Multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from paretorch.balance.fairgrad import FairGrad
from paretorch.core.contract import Balance, Evidence, Method, Need

_BARGAIN = FairGrad(alpha=1.0)


@dataclass(frozen=True)
class NashMTL(Method[None]):
    r"""The update on which tasks agree that bargain over what it does for each: the Nash bargaining solution.

    .. math:: G w = 1 / w, \; w > 0: \qquad d = \arg\max_{\lVert d \rVert \le \sqrt{T}} \sum_t \log \langle g_t, d \rangle

    Every task gains, in proportion to its gradient's length, whatever the lengths are. The system has one solution unless zero
    lies in the convex hull of the gradients; then the status is STATIONARY, and the cosines get a ridge of 1e-6. A zero
    gradient gets weight 0.

    Calibrated, it is of degree one in the gradients; at the paper's scale the update's length is the square root of T.

    Example:
        >>> import torch
        >>> from paretorch.core.method.weights import weights
        >>> weights(NashMTL(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.5915, 0.4071], dtype=torch.float64)

    References:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, claim 3.1. They iterate over convex
        programs, and their code returns the iterate before the last; we solve to a residual of 1e-10 by Newton's method. In
        their scripts the heads are weighted too (``heads="weighted"``), and weights serve several steps (``every=``).
    """

    needs = Need.GRAMIAN
    homogeneous_on_paper = False

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return _BARGAIN.balance(evidence, state)

    def calibrated(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return _BARGAIN.calibrated(evidence, state)
