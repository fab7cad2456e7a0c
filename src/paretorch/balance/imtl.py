"""Impartial multi-task learning, gradient part (Liu et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.solvers import cancels, pseudo_inverse


@dataclass(frozen=True)
class IMTLG(Method[None]):
    r"""The combination whose projections on all unit task gradients are equal.

    .. math:: C v = 1, \qquad w_t = \frac{v_t / \lVert g_t \rVert}{\lvert \sum_s v_s / \lVert g_s \rVert \rvert}

    A zero gradient has no direction and gets weight 0.

    Example:
        >>> from paretorch.core.weights import weights
        >>> weights(IMTLG(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.5923, 0.4077], dtype=torch.float64)

    References:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, eq. (4)-(6). The paper divides by the sum itself,
        which can be negative: then the update raises every task. We divide by its absolute value and solve on cosines.
    """

    needs = Need.GRAMIAN

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        norms, there = evidence.norms, evidence.norms > 0
        inverse = pseudo_inverse(evidence.cosines, evidence.resolution)
        raw = torch.where(there, (inverse @ there.to(norms)) / torch.where(there, norms, 1.0), 0.0)
        total = raw.sum().abs()
        if total <= 1e-12 * raw.abs().sum():  # gradients cancel: nothing is common to descend
            return Balance(torch.zeros_like(raw), Status.STATIONARY), state
        weights = raw / total
        stationary = cancels(evidence.needed("gramian"), weights)
        return Balance(weights, Status.STATIONARY if stationary else Status.SOLVED), state
