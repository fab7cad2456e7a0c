"""The learning rate of every step: a factor on the optimizer's own, which depends on nothing but the step."""

from __future__ import annotations

import math

import torch

from paretorch.training.run import SCHEDULES, falling


class Schedule:
    r"""Sets the learning rates of all parameter groups before a step.

    With the step s of S, counted from 0, and W = warmup S:

    .. math:: f(s) = \frac{s + 1}{W} \text{ while } s < W, \qquad
        f(s) = \tfrac{1}{2} \Bigl(1 + \cos \pi \frac{s - W}{S - W}\Bigr) \text{ after it, or 1 where constant,}

    or, with the epoch e of the step, counted from 0, and ``"step(a, n)"``, a to the power of e // n.

    It keeps no state, so that a resumed run has the rates of one that was never stopped.

    Args:
        optimizer: with the rates that are meant; those that a checkpoint brings back later are overwritten.
        kind: ``"constant"``, ``"cosine"`` or ``"step(a, n)"``.
        warmup: share of the steps, 0 <= warmup < 1.
        steps: S.
        epochs: that these steps are of, as many in each.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        >>> schedule = Schedule(optimizer, "cosine", warmup=0.0, steps=4)
        >>> schedule.before(2)
        >>> round(optimizer.param_groups[0]["lr"], 6)
        0.25

    References:
        Loshchilov & Hutter, "SGDR", ICLR 2017, eq. (5), without restarts; Goyal et al., "Accurate, large minibatch SGD", 2017,
        section 2.2, for the warm-up.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, kind: str, warmup: float, steps: int, epochs: int = 1) -> None:
        self.fall = None if kind in SCHEDULES else falling(kind)
        self.per_epoch = steps // epochs
        self.optimizer, self.kind, self.warm, self.steps = optimizer, kind, warmup * steps, steps
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """The factor of a step, in 0..1."""
        if step < self.warm:
            return min(1.0, (step + 1) / self.warm)
        if self.kind == "constant":
            return 1.0
        if self.fall is not None:
            factor, every = self.fall
            return float(factor ** (step // self.per_epoch // every))
        return 0.5 * (1 + math.cos(math.pi * (step - self.warm) / (self.steps - self.warm)))

    def before(self, step: int) -> None:
        """Sets the rates for a step; a constant rate without a warm-up is left alone."""
        if self.kind == "constant" and not self.warm:
            return
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(step)
