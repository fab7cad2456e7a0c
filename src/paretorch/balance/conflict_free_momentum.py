"""Conflict-free inverse gradients of momenta (Liu, Chu & Thuerey, ICLR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from paretorch.balance.conflict_free import ConFIG
from paretorch.balance.parts.stored_gradients import mean_gramian, mean_over_ranks, stored_rows
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.option_checks import check_fraction
from paretorch.core.search_space import Range, SearchSpace

EPS = 1e-8


class ConFIGMomentumState(NamedTuple):
    """``momenta`` (all, n) of the gradients; ``taken`` (all,): the number of gradients in each; ``combined`` and ``square``
    (1, n): first and second moment of the update; no columns before the first step; ``steps`` (): the number of nonzero updates.
    """

    momenta: Tensor
    taken: Tensor
    combined: Tensor
    square: Tensor
    steps: Tensor


@dataclass(frozen=True)
class ConFIGMomentum(Method[ConFIGMomentumState]):
    r""":class:`~paretorch.ConFIG` of the tasks' momenta, of which a step updates one, with the normalization of Adam.

    .. math:: m_t \leftarrow \beta_1 m_t + (1 - \beta_1) g_t \text{ for one } t, \qquad
              \hat m = \mathrm{ConFIG} \Big( \frac{m_1}{1 - \beta_1^{k_1}}, \dots, \frac{m_T}{1 - \beta_1^{k_T}} \Big), \\
              \tilde m_k = (1 - \beta_1^k) \hat m, \quad \tilde g = \frac{\tilde m_k - \beta_1 \tilde m_{k-1}}{1 - \beta_1}, \quad
              v \leftarrow \beta_2 v + (1 - \beta_2) \tilde g^2, \qquad d = \frac{\hat m}{\sqrt{v / (1 - \beta_2^k)} + 10^{-8}}

    A step updates the momentum with the fewest gradients among the tasks that are present. If the :class:`~paretorch.Balancer`
    receives the loss of one task in each step, in turn, a step costs one backward. From one loss the shared parameters cannot be
    found: give ``shared=encoder``. Use it with ``torch.optim.SGD``, since the update is already normalized. The state has
    (T + 2) x n numbers. For a Balancer only.

    Until every declared task has a momentum, the update is zero and the status ABSENT, since a direction without conflict with
    some tasks can conflict with the others; k counts the steps after that. If several tasks without a momentum are present, a
    step starts all of theirs, so that the first update is nonzero if all tasks are present.

    Args:
        beta1: decay rate of the momenta, in [0, 1).
        beta2: decay rate of the second moment, in [0, 1).

    Example:
        >>> import paretorch as pt
        >>> shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> balance = pt.Balancer(pt.ConFIGMomentum()).backward({"a": shared.square().sum(), "b": (shared - 3).square().sum()})
        >>> shared.grad
        tensor([-1.,  1.])

    References:
        Liu, Chu & Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
        Algorithm 1 (M-ConFIG). The authors' code also starts after all tasks have a momentum.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    needs = Need.JACOBIAN
    homogeneous = False
    features = False
    search_space: ClassVar[SearchSpace] = {"beta1": Range(0.5, 0.99), "beta2": Range(0.9, 0.9999)}

    def __post_init__(self) -> None:
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            check_fraction(name, value)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> ConFIGMomentumState:
        size, nothing = len(tasks), like.new_zeros(1, 0)
        return ConFIGMomentumState(
            like.new_zeros(size, 0), like.new_zeros(size), nothing, nothing.clone(), like.new_zeros(())
        )

    def balance(self, evidence: Evidence, state: ConFIGMomentumState) -> tuple[Balance, ConFIGMomentumState]:
        present, jacobian = evidence.present, evidence.needed("jacobian")
        momenta, taken = stored_rows(state.momenta, evidence), state.taken.to("cpu", torch.float64, copy=True)
        new = (taken[present] == 0).nonzero().flatten().tolist()
        for chosen in new or [int(taken[present].argmin())]:
            task = int(present.nonzero()[chosen])
            momenta[task] = self.beta1 * momenta[task] + (1 - self.beta1) * jacobian[chosen]
            taken[task] += 1
        if not bool(taken.all()):
            state = state._replace(momenta=momenta, taken=taken)
            return Balance(None, Status.ABSENT, torch.zeros_like(jacobian[0])), state
        rows = momenta / (1 - self.beta1**taken).to(momenta)[:, None]
        names = tuple(map(str, range(len(taken))))
        inner = Evidence(names, taken > 0, gramian=mean_gramian(rows, evidence), resolution=evidence.resolution)
        balance, _ = ConFIG().balance(inner, None)
        assert balance.weights is not None
        mean = balance.weights.to(rows) @ rows
        steps = float(state.steps) + 1
        combined = (1 - self.beta1**steps) * mean
        before = combined * 0 if state.combined.shape[1] == 0 else state.combined[0].to(combined)
        gradient = mean_over_ranks((combined - self.beta1 * before) / (1 - self.beta1), evidence)
        square = (1 - self.beta2) * gradient.square()
        if state.square.shape[1]:
            square = square + self.beta2 * state.square[0].to(square)
        update = mean / ((square / (1 - self.beta2**steps)).sqrt() + EPS)
        kept = ConFIGMomentumState(momenta, taken, combined[None], square[None], state.steps + 1)
        return Balance(None, balance.status, update), kept
