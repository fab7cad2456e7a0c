"""Gradient sign dropout (Chen et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from paretorch.balance.parts.stored_gradients import mean_over_ranks
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.gradients.task_gradients import to_device
from paretorch.core.option_checks import check_fraction
from paretorch.core.search_space import Range, SearchSpace


@dataclass(frozen=True)
class GradDrop(Method[None]):
    r"""The sum of the gradients of one sign in each coordinate; the sign is drawn with probability P.

    .. math:: P = \tfrac{1}{2} \Big( 1 + \frac{\sum_t g_t}{\sum_t \lvert g_t \rvert} \Big), \quad U \sim [0, 1], \quad
              d = \sum_t \big( l + (1 - l) \, [\mathrm{sign}(g_t) = \mathrm{sign}(P - U)] \big) \, g_t

    On features of shape (B, D) the sign of a coordinate is that of sum_b sign(z_bd) g_bd, and one mask of (D,) applies to
    the whole batch. On parameters, and on features of several tensors, every coordinate has its own sign.

    Args:
        leak: l, the factor of dropped gradients, in [0, 1].

    Example:
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> balance = pt.Balancer(pt.GradDrop()).backward({"a": shared.square().sum(), "b": (shared - 3).square().sum()})
        >>> shared.grad
        tensor([-4., -2.])

    References:
        Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020, section 3
        and Algorithm 1.
    """

    leak: float = 0.0
    needs = Need.JACOBIAN
    search_space: ClassVar[SearchSpace] = {"leak": Range(0.0, 0.9)}
    random = True

    def __post_init__(self) -> None:
        check_fraction("leak", self.leak, "[]")

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        jacobian, features = evidence.needed("jacobian"), evidence.features
        signs = jacobian
        if evidence.on_parameters:
            signs = mean_over_ranks(jacobian, evidence)  # of the batches of all ranks
        if features is not None:
            samples = jacobian.view(len(jacobian), *features.shape)
            signs = evidence.total((features.sign() * samples).sum(dim=1))
        absolute = signs.abs().sum(dim=0)
        chance = torch.where(absolute > 0, (1 + signs.sum(dim=0) / torch.where(absolute > 0, absolute, 1.0)) / 2, 0.5)
        draw = torch.rand(chance.shape, generator=evidence.generator, dtype=torch.float64)
        draw = to_device(draw.to(chance.dtype), chance.device)
        positive = chance > draw
        kept = torch.where(positive, signs > 0, signs < 0)
        mask = self.leak + (1 - self.leak) * kept.to(jacobian)
        if features is not None:
            mask = mask[:, None, :].expand(samples.shape).reshape(jacobian.shape)
        return Balance(None, update=(mask * jacobian).sum(dim=0)), state
