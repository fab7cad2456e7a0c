"""Hugging Face: a Trainer with several losses, a Balancer's state in its checkpoints, and the balance in its logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.core.balancer.balancer import Balancer
from paretorch.extras import extra
from paretorch.integrations.balance_scalars import balance_scalars

with extra("transformers"):
    from safetensors.torch import load_file, save_file
    from transformers import Trainer
    from transformers.trainer_pt_utils import find_batch_size

Losses = Mapping[str, Tensor | None]
STATE_FILE = "balancer.safetensors"


class BalancedTrainer(Trainer):  # type: ignore[misc]
    """A Trainer of several losses: with a Balancer, or with a Fork in the model.

    Training logs contain the numbers of ``Balance.scalars``. An evaluation reports the plain sum of the losses as
    ``eval_loss`` and each task's as ``eval_loss_TASK``. The Balancer's state is in every checkpoint
    (``balancer.safetensors``), a Fork's in the model. As a mixin it comes first: ``class Both(BalancedTrainer, SFTTrainer)``.

    Args:
        args, kwargs: of the Trainer.
        losses: the field of the model's output that contains the losses by task; or a function of the model and the inputs that
            returns them, or them and the outputs, which ``compute_metrics`` receives. Each is a mean over its batch, None where
            the task is absent. By default the loss is the Trainer's own, for a model with a Fork.
        balancer: its ``total`` of the losses is the loss; None: their sum. Made with ``accumulate=gradient_accumulation_steps``
            it balances the joined micro-batches of a step.

    Raises:
        ValueError: on a Balancer without losses, losses together with a loss function of the Trainer, another number of
            micro-batches, or a checkpoint without the Balancer's state.
    """

    def __init__(
        self,
        *args: Any,
        losses: str | Callable[[nn.Module, dict[str, Any]], Any] | None = None,
        balancer: Balancer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if balancer is not None and losses is None:
            raise ValueError(
                "a Balancer needs losses by task: losses='FIELD' of the model's output, or losses=FUNCTION"
            )
        if losses is not None and (self.compute_loss_func is not None or self.args.label_smoothing_factor > 0):
            raise ValueError(
                "losses= replaces compute_loss_func and label_smoothing_factor: compute them within the losses"
            )
        steps = self.args.gradient_accumulation_steps
        if balancer is not None and balancer.accumulate not in (1, steps):
            raise ValueError(f"gradient_accumulation_steps={steps} needs Balancer(..., accumulate={steps}), or 1")
        self.losses, self.balancer = losses, balancer
        if losses is not None:  # means over a batch, which the Trainer divides by the number of micro-batches
            self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False
            self.can_return_loss = True  # in an evaluation too, whatever the labels are called
        self._of_batch: Losses = {}
        self._of_samples: list[Tensor] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The total of the losses."""
        if self.losses is None:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        if isinstance(self.losses, str):
            outputs = dict(model(**inputs))
            if self.losses not in outputs:
                raise ValueError(f"losses={self.losses!r} is not in the model's output, which has {', '.join(outputs)}")
            losses = outputs.pop(self.losses)
        else:
            found = self.losses(model, inputs)
            losses, outputs = found if isinstance(found, tuple) else (found, {})
        self._of_batch = {task: None if loss is None else loss.detach() for task, loss in losses.items()}
        if self.balancer is not None:
            loss = self.balancer.total(losses)
        else:
            loss = torch.stack([each for each in losses.values() if each is not None]).sum()
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Ends a step of fewer micro-batches, the last one of an epoch."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.balancer is not None and self.accelerator.sync_gradients:
            self.balancer.flush()
        return loss

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keeps the loss of each task; nan where it is absent."""
        found = super().prediction_step(model, inputs, *args, **kwargs)
        if self._of_batch:
            values = [float("nan") if loss is None else float(loss) for loss in self._of_batch.values()]
            rows = torch.tensor(values, device=self.args.device).repeat(find_batch_size(inputs) or 1, 1)
            self._of_samples.append(self.gather_function(rows))
        return found

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Adds the loss of each task to the metrics."""
        self._of_batch, self._of_samples = {}, []
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._of_samples:
            means = torch.cat(self._of_samples).nanmean(0).tolist()
            output.metrics.update(
                {f"{metric_key_prefix}_loss_{task}": mean for task, mean in zip(self._of_batch, means, strict=True)}
            )
        return output

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the balance of the last step to training logs."""
        if "loss" in logs:
            logs |= balance_scalars(self.model if self.balancer is None else self.balancer)
        super().log(logs, *args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.balancer is not None and self.args.should_save:
            save_file(self.balancer.state_dict(), Path(output_dir, STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.balancer is None or checkpoint is None:
            return
        file = Path(checkpoint, STATE_FILE)
        if not file.is_file():
            raise ValueError(f"{file} does not exist: the checkpoint was written without the Balancer; start a new run")
        self.balancer.load_state_dict(load_file(file))
