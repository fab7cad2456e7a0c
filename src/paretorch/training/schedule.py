"""Learning-rate schedules, as a factor that depends on the step only."""

from __future__ import annotations

import math

import torch

from paretorch.training.run import SCHEDULES, step_decay


class Schedule:
    r"""Sets the learning rates of all parameter groups before a step.

    With the step s of S, counted from 0, and W = warmup S:

    .. math:: f(s) = \frac{s + 1}{W} \text{ while } s < W, \qquad
        f(s) = \tfrac{1}{2} \Bigl(1 + \cos \pi \frac{s - W}{S - W}\Bigr) \text{ after it, or 1 where constant,}

    or, with ``"step(a, n)"`` and the epoch e of the step, counted from 0, a to the power of e // n.

    The schedule has no state, so that a resumed run has the rates of an uninterrupted one.

    Args:
        optimizer: with its initial rates; rates that a checkpoint restores later are overwritten.
        kind: ``"constant"``, ``"cosine"`` or ``"step(a, n)"``.
        warmup: share of the steps, 0 <= warmup < 1.
        steps: S.
        epochs: E, each of S / E steps.

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
        self.decay = None if kind in SCHEDULES else step_decay(kind)
        self.per_epoch = steps // epochs
        self.optimizer, self.kind, self.warmup_steps, self.steps = optimizer, kind, warmup * steps, steps
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """The factor of a step, in 0..1."""
        if step < self.warmup_steps:
            return min(1.0, (step + 1) / self.warmup_steps)
        if self.kind == "constant":
            return 1.0
        if self.decay is not None:
            factor, every = self.decay
            return float(factor ** (step // self.per_epoch // every))
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / (self.steps - self.warmup_steps)))

    def before(self, step: int) -> None:
        """Sets the rates for a step; does nothing for a constant rate without warm-up."""
        if self.kind == "constant" and not self.warmup_steps:
            return
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(step)
