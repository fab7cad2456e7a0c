"""A module whose buffers are the state of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core.contract import Balance, Method
from paretorch.core.method.runner import MethodRunner, Scale
from paretorch.former_names import warn_renamed


class MethodModule(nn.Module):
    """Registers the state of a :class:`MethodRunner` as buffers of its own.

    A module, because only a module's buffers are saved, moved and synchronised with the model under their own names; all else is
    the runner's. The buffers are saved by task name and never cast.

    Args:
        method: the balancing method.
        scale, every, factor, group, seed: of :class:`~paretorch.Fork` and :class:`~paretorch.Balancer`.
        on_parameters: whether gradients are compared on parameters; else on features.
    """

    task_names: Tensor
    steps: Tensor

    def __init__(
        self,
        method: Method[Any],
        *,
        scale: Scale,
        every: int,
        factor: float | None,
        group: dist.ProcessGroup | str | None,
        seed: int,
        on_parameters: bool,
    ) -> None:
        super().__init__()
        self.runner = MethodRunner(
            method,
            scale=scale,
            every=every,
            factor=factor,
            group=group,
            seed=seed,
            on_parameters=on_parameters,
            owner=type(self).__name__,
            tensors=self._buffers,
        )

    @property
    def method(self) -> Method[Any]:
        """The balancing method."""
        return self.runner.method

    @property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks; empty before the first step where it declares them."""
        return self.runner.state.tasks

    @property
    def scale(self) -> Scale:
        """The scale of the weights."""
        return self.runner.scale

    @property
    def every(self) -> int:
        """Weights are computed in every so many steps, and reused in between."""
        return self.runner.every

    @property
    def seed(self) -> int:
        """The seed of the method's random draws."""
        return self.runner.seed

    @property
    def factor(self) -> float | None:
        """dTotal/dL_t as it was given; assigned where it changes during training."""
        return self.runner.factor

    @factor.setter
    def factor(self, factor: float | None) -> None:
        self.runner.factor = factor

    @property
    def skipped(self) -> dict[str, int]:
        """The number of steps from which each task was left out, by task."""
        return self.runner.skipped

    @property
    def balance(self) -> Balance | None:
        """The result of the last step; None before the first."""
        return self.runner.balance

    def deferred_balance(self) -> Callable[[], Balance | None]:
        """Gives :attr:`balance` of this step at a later time, without the combined gradient of a Jacobian method."""
        return self.runner.deferred_balance()

    def said(self) -> Callable[[], Balance | None]:
        """The former name of :meth:`deferred_balance`."""
        warn_renamed(f"{type(self).__name__}.said", f"{type(self).__name__}.deferred_balance")
        return self.deferred_balance()

    def observe(self, losses: Mapping[str, Tensor | None]) -> None:
        """Pass the losses on the same batch after the optimizer's step to methods that use them (FAMO).

        Args:
            losses: scalars by task name; compute them under ``torch.no_grad()``, with the same dropout masks.
        """
        self.runner.observe(losses)

    def end_epoch(self) -> None:
        """Report the end of an epoch to methods that count in epochs."""
        self.runner.end_epoch()

    def reset_state(self) -> None:
        """Restore what was there before the first step: state, counters, record. A Balancer made without tasks undeclares them.

        Example:
            >>> import paretorch as pt
            >>> fork = pt.Fork(pt.FAMO(), tasks=("left", "right"))
            >>> _ = fork.state_logits.fill_(1.0)
            >>> fork.reset_state()
            >>> fork.state_logits
            tensor([0., 0.], dtype=torch.float64)
        """
        self.runner.reset()

    def extra_repr(self) -> str:
        """The method and the tasks, in the model's print."""
        return f"{self.method}, tasks={self.tasks}"

    # --- torch's protocol of buffers -------------------------------------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the state with the model and keep its dtypes: a float16 counter stops counting at 2048."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                dtype = torch.float32 if moved.device.type == "mps" and buffer.dtype == torch.float64 else buffer.dtype
                self._buffers[name] = buffer.to(moved.device, dtype)
        if any(b is not None and b.is_meta and not self._buffers[name].is_meta for name, b in before.items()):  # type: ignore[union-attr]
            self.runner.state.reset()  # the memory is uninitialised
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.runner.state.prepare_load(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.runner.state.tensors_changed()
