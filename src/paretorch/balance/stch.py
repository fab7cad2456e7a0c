"""Smooth Tchebycheff scalarization (Lin, Zhang, Yang, Liu, Wang & Zhang, ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.parts.loss_domain import losses_above
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_above, check_whole
from paretorch.core.search_space import Range, SearchSpace


class SmoothTchebycheffState(NamedTuple):
    """``nadir`` (all,): mean losses of the last complete warm-up epoch, nan before; ``total`` and ``met`` (all,): sum and number
    of the losses in this epoch; ``epochs`` and ``steps`` (): of the warm-up and of this epoch.
    """

    nadir: Tensor
    total: Tensor
    met: Tensor
    epochs: Tensor
    steps: Tensor


@dataclass(frozen=True)
class SmoothTchebycheff(Method[SmoothTchebycheffState]):
    r"""A smooth maximum of the log-losses, relative to their values after a warm-up.

    .. math:: T \mu \log \sum_t \exp \Big( \tfrac{1}{\mu} \log \frac{L_t}{z_t} \Big), \qquad
              w_t = \frac{T}{L_t} \, \mathrm{softmax}_t \Big( \tfrac{1}{\mu} \log \frac{L}{z} \Big)

    The warm-up minimizes sum log L_t, with w_t = 1/L_t. The nadir z is the mean loss of the last epoch of the warm-up. For a task
    that is absent in it, z is the mean of an earlier epoch, or else its first loss after the warm-up.

    Args:
        mu: smoothing, above 0; in the limit 0 the objective is the maximum.
        warmup: number of epochs, at least 1.
        window: steps per epoch of the warm-up; None: an epoch ends with ``fork.end_epoch()``.

    Raises:
        ValueError: in a step with a loss that is not above 0.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.SmoothTchebycheff(), losses=torch.tensor([2.0, 0.5]))
        tensor([0.5000, 2.0000], dtype=torch.float64)

    References:
        Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024, section 3. The
        nadir is part of the state, so that a resumed run has it.
    """

    mu: float = 1.0
    warmup: int = 4
    window: int | None = None
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"mu": Range(0.05, 5.0, log=True)}

    def __post_init__(self) -> None:
        check_above("mu", self.mu)
        check_whole("warmup", self.warmup, unit=" epochs")
        if self.window is not None:
            check_whole("window", self.window, unit=" steps, or None for epochs")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> SmoothTchebycheffState:
        zeros, zero = like.new_zeros(len(tasks)), like.new_zeros(())
        return SmoothTchebycheffState(torch.full_like(zeros, torch.nan), zeros, zeros.clone(), zero, zero.clone())

    def balance(self, evidence: Evidence, state: SmoothTchebycheffState) -> tuple[Balance, SmoothTchebycheffState]:
        present, losses = evidence.present, losses_above(evidence, 0.0, "SmoothTchebycheff")
        if float(state.epochs) >= self.warmup:
            nadir = state.nadir.clone()
            nadir[present] = torch.where(torch.isnan(nadir[present]), losses, nadir[present])
            logs = (torch.log(losses) - torch.log(nadir[present])) / self.mu
            return Balance(len(losses) * torch.softmax(logs, dim=0) / losses), state._replace(nadir=nadir)
        total, met = state.total.clone(), state.met.clone()
        total[present] += losses
        met[present] += 1
        state = state._replace(total=total, met=met, steps=state.steps + 1)
        full = self.window is not None and float(state.steps) >= self.window
        return Balance(1 / losses), self._closed(state) if full else state

    def end_epoch(self, state: SmoothTchebycheffState) -> SmoothTchebycheffState:
        return self._closed(state) if self.window is None and float(state.epochs) < self.warmup else state

    def _closed(self, state: SmoothTchebycheffState) -> SmoothTchebycheffState:
        """The state after an epoch of the warm-up."""
        return SmoothTchebycheffState(
            torch.where(state.met > 0, state.total / state.met.clamp_min(1), state.nadir),
            torch.zeros_like(state.total),
            torch.zeros_like(state.met),
            state.epochs + 1,
            torch.zeros_like(state.steps),
        )
