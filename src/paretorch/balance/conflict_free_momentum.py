"""Conflict-free inverse gradients of momenta (Liu, Chu & Thuerey, ICLR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.conflict_free import ConFIG
from paretorch.balance.parts.ranges import share
from paretorch.balance.parts.task_rows import gramian_of, kept_rows, over_ranks
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-8


class ConFIGMomentumState(NamedTuple):
    """``momenta`` (all, n) of the gradients; ``taken`` (all,): the gradients in each; ``combined`` and ``square`` (1, n): first
    and second moment of the update; no columns before the first step; ``steps`` (): how many moved, with every task's gradient.
    """

    momenta: Tensor
    taken: Tensor
    combined: Tensor
    square: Tensor
    steps: Tensor


@dataclass(frozen=True)
class ConFIGMomentum(Method[ConFIGMomentumState]):
    r""":class:`~paretorch.ConFIG` of the tasks' momenta, of which a step refreshes one; divided as Adam divides.

    .. math:: m_t \leftarrow \beta_1 m_t + (1 - \beta_1) g_t \text{ for one } t, \qquad
              \hat m = \mathrm{ConFIG} \Big( \frac{m_1}{1 - \beta_1^{k_1}}, \dots, \frac{m_T}{1 - \beta_1^{k_T}} \Big), \\
              \tilde m_k = (1 - \beta_1^k) \hat m, \quad \tilde g = \frac{\tilde m_k - \beta_1 \tilde m_{k-1}}{1 - \beta_1}, \quad
              v \leftarrow \beta_2 v + (1 - \beta_2) \tilde g^2, \qquad d = \frac{\hat m}{\sqrt{v / (1 - \beta_2^k)} + 10^{-8}}

    Refreshed is, of the tasks that are present, the one whose momentum is of the fewest gradients: give the
    :class:`~paretorch.Balancer` one task's loss a step, in turn, and a step costs one backward. One loss does not show what it
    shares with others: ``shared=encoder`` says it. Use it with ``torch.optim.SGD``, since the update is already divided. The
    state holds (T + 2) x n numbers. For a Balancer only.

    Until every declared task has had a gradient, the update is zero and the status ABSENT, and k counts from the step at which
    the last one has: a direction that is free of conflict with some tasks says nothing of the others. A step in which several
    tasks without a momentum are present begins all of theirs, so that with all tasks present the first step moves.

    Args:
        beta1: of the momenta, in [0, 1).
        beta2: of the second moment, in [0, 1).

    References:
        Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
        Algorithm 1 (M-ConFIG). The authors' code waits in the same way.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    needs = Need.JACOBIAN
    homogeneous = False
    features = False
    search_space: ClassVar[SearchSpace] = {"beta1": Range(0.5, 0.99), "beta2": Range(0.9, 0.9999)}

    def __post_init__(self) -> None:
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            share(name, value)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> ConFIGMomentumState:
        size, nothing = len(tasks), like.new_zeros(1, 0)
        return ConFIGMomentumState(
            like.new_zeros(size, 0), like.new_zeros(size), nothing, nothing.clone(), like.new_zeros(())
        )

    def balance(self, evidence: Evidence, state: ConFIGMomentumState) -> tuple[Balance, ConFIGMomentumState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        momenta, taken = kept_rows(state.momenta, evidence), state.taken.to("cpu", torch.float64, copy=True)
        begins = (taken[present] == 0).nonzero().flatten().tolist()
        for chosen in begins or [int(taken[present].argmin())]:
            task = int(present.nonzero()[chosen])
            momenta[task] = self.beta1 * momenta[task] + (1 - self.beta1) * jacobian[chosen]
            taken[task] += 1
        if not bool(taken.all()):
            waiting = state._replace(momenta=momenta, taken=taken)
            return Balance(None, Status.ABSENT, torch.zeros_like(jacobian[0])), waiting
        rows = momenta / (1 - self.beta1**taken).to(momenta)[:, None]
        names = tuple(str(place) for place in range(len(taken)))
        seen = Evidence(names, taken > 0, gramian=gramian_of(rows, evidence), resolution=evidence.resolution)
        balance, _ = ConFIG().balance(seen, None)
        assert balance.weights is not None
        mean = balance.weights.to(rows) @ rows
        steps = float(state.steps) + 1
        combined = (1 - self.beta1**steps) * mean
        before = combined * 0 if state.combined.shape[1] == 0 else state.combined[0].to(combined)
        gradient = over_ranks((combined - self.beta1 * before) / (1 - self.beta1), evidence)
        square = (1 - self.beta2) * gradient.square()
        if state.square.shape[1]:
            square = square + self.beta2 * state.square[0].to(square)
        update = mean / ((square / (1 - self.beta2**steps)).sqrt() + EPS)
        kept = ConFIGMomentumState(momenta, taken, combined[None], square[None], state.steps + 1)
        return Balance(None, balance.status, update), kept
