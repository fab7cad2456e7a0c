"""The sum of the losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paretorch.core.contract import Balance, Evidence, Method, Need


@dataclass(frozen=True)
class Equal(Method[None]):
    r"""The sum of the losses, the reference of every comparison.

    .. math:: w_t = 1

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.Equal(), losses=torch.tensor([2.0, 300.0]))
        tensor([1., 1.], dtype=torch.float64)
    """

    needs = Need.LOSSES

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return Balance(torch.ones(len(evidence.tasks), dtype=torch.float64)), state
