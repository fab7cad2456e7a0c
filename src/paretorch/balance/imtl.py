"""Impartial multi-task learning, both parts (Liu et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from paretorch.balance.imtlg import IMTLG
from paretorch.balance.imtll import IMTLL, IMTLLState, scaled
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.search_space import Range, SearchSpace


@dataclass(frozen=True)
class IMTL(Method[IMTLLState]):
    r"""Learned scales of the losses by :class:`~paretorch.IMTLL`, and :class:`~paretorch.IMTLG` on the scaled gradients.

    .. math:: g_t' = e^{s_t} g_t, \qquad
              w_t = e^{s_t} \, \frac{v_t / \lVert g_t' \rVert}{\lvert \sum_s v_s / \lVert g_s' \rVert \rvert}, \quad C v = 1

    Args:
        rate: Adam's learning rate for s, above 0.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.IMTL(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]), losses=torch.tensor([1.0, 2.0]))
        tensor([0.5923, 0.4077], dtype=torch.float64)

    References:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, Algorithm 1. There each head minimizes its scaled loss; a
        :class:`~paretorch.Balancer` does the same, while a head after a :class:`~paretorch.Fork` receives the gradient of its
        unscaled loss. For the other differences see the two parts.
    """

    rate: float = 0.025
    needs = Need.GRAMIAN | Need.LOSSES
    homogeneous = False
    search_space: ClassVar[SearchSpace] = {"rate": Range(2.5e-3, 0.25, log=True)}

    def __post_init__(self) -> None:
        IMTLL(self.rate)  # checks it

    def init(self, tasks: tuple[str, ...], like: Tensor) -> IMTLLState:
        return IMTLL(self.rate).init(tasks, like)

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: IMTLLState) -> tuple[Balance, IMTLLState]:
        scales, state = scaled(evidence, state, self.rate, "IMTL")
        assert scales.weights is not None
        outer = torch.outer(scales.weights, scales.weights)
        balance, _ = IMTLG().balance(replace(evidence, gramian=evidence.needed("gramian") * outer), None)
        assert balance.weights is not None
        return Balance(balance.weights * scales.weights, balance.status, heads=scales.weights), state
