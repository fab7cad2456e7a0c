"""Dynamic weight averaging (Liu, Johns & Davison, CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_whole
from paretorch.core.search_space import Range, SearchSpace


class DWAState(NamedTuple):
    """``before`` and ``last`` (all,): mean losses of the last two full windows, nan before; ``total`` and ``met``
    (all,): sum and number of the losses in this window; ``steps`` (): its length so far.
    """

    before: Tensor
    last: Tensor
    total: Tensor
    met: Tensor
    steps: Tensor


@dataclass(frozen=True)
class DWA(Method[DWAState]):
    r"""Weights that increase with the ratio of a task's last two mean losses.

    .. math:: w_t = T \, \mathrm{softmax}_t(r_t / \tau), \qquad r_t = \bar L_t^{(k-1)} / \bar L_t^{(k-2)}

    with the mean losses of the last full window and of the one before. The ratio of a task with fewer than two windows is 1.

    Args:
        temperature: tau, above 0.
        window: steps per window; None: a window is an epoch, which ends with ``fork.end_epoch()``.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.DWA(), losses=torch.tensor([2.0, 1.0]))
        tensor([1., 1.], dtype=torch.float64)

    References:
        Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, eq. (7). They use epochs; with a
        window of 25 steps the weights change within an epoch.
    """

    temperature: float = 2.0
    window: int | None = 25
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"temperature": Range(0.5, 8.0, log=True)}

    def __post_init__(self) -> None:
        check_above("temperature", self.temperature)
        if self.window is not None:
            check_whole("window", self.window, unit=" steps, or None for epochs")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> DWAState:
        zeros, unknown = like.new_zeros(len(tasks)), like.new_full((len(tasks),), torch.nan)
        return DWAState(unknown, unknown.clone(), zeros, zeros.clone(), like.new_zeros(()))

    def balance(self, evidence: Evidence, state: DWAState) -> tuple[Balance, DWAState]:
        present, losses = evidence.present, evidence.needed("losses")
        ratio = torch.nan_to_num(state.last / state.before, nan=1.0, posinf=1.0, neginf=1.0)[present]
        weights = len(evidence.tasks) * torch.softmax(ratio / self.temperature, dim=0)
        total, met = state.total.clone(), state.met.clone()
        total[present] += losses
        met[present] += 1
        state = state._replace(total=total, met=met, steps=state.steps + 1)
        full = self.window is not None and int(state.steps) >= self.window
        return Balance(weights), self._closed(state) if full else state

    def end_epoch(self, state: DWAState) -> DWAState:
        return self._closed(state) if self.window is None else state

    def _closed(self, state: DWAState) -> DWAState:
        """The state after the end of a window; the means of a task that was absent in it are unchanged."""
        present = state.met > 0
        mean = state.total / state.met.clamp_min(1)
        return DWAState(
            torch.where(present, state.last, state.before),
            torch.where(present, mean, state.last),
            torch.zeros_like(state.total),
            torch.zeros_like(state.met),
            torch.zeros_like(state.steps),
        )
