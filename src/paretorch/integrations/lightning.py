"""Lightning: logs the balance of every step."""

from __future__ import annotations

from typing import Any

from paretorch.core.option_checks import check_whole
from paretorch.extras import extra
from paretorch.integrations.balance_scalars import balance_scalars

with extra("lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class BalanceLogger(Callback):  # type: ignore[misc]
    """Logs weights, losses, norms and cosines of every Fork and Balancer in the LightningModule.

    The numbers are those of ``Balance.scalars``, and are given to all loggers of the Trainer at the number of the
    optimizer step. Only the first rank logs; the numbers of a step are equal on all ranks.

    Args:
        every_n_steps: optimizer steps from one record to the next; None: ``log_every_n_steps`` of the Trainer.
        prefix: of every name, before a slash; with several Forks or Balancers their place in the module follows.

    Example:
        >>> callbacks = [BalanceLogger(every_n_steps=10)]  # of lightning.Trainer
        >>> callbacks[0].prefix
        'balance'
    """

    def __init__(self, every_n_steps: int | None = None, prefix: str = "balance") -> None:
        if every_n_steps is not None:
            check_whole("every_n_steps", every_n_steps)
        self.every_n_steps, self.prefix = every_n_steps, prefix
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start at the step at which training starts or is resumed."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the last optimizer step, once: a batch whose gradients are accumulated is not a step."""
        step, every = trainer.global_step, self.every_n_steps or trainer.log_every_n_steps
        if not trainer.is_global_zero or step // every == self._logged_step // every:
            return
        self._logged_step = step
        numbers = balance_scalars(pl_module, self.prefix)
        for logger in trainer.loggers if numbers else ():
            logger.log_metrics(numbers, step=step - 1)  # Lightning counts the first step as 0
