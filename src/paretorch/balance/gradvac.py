"""Gradient vaccine (Wang, Tsvetkov, Firat & Cao, ICLR 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.balance.parts.ranges import share
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.minimum_norm import unit_rows
from paretorch.core.solvers.nonnegative import Array

LARGEST = 0.99  # of a target: at 1 no finite multiple reaches it
VANISHED = 1e-7  # of a row's length: what is left is rounding and has no direction


class GradVacState(NamedTuple):
    """``targets`` (all, all): phi_ij, the cosine that task i's gradient is to have with task j's."""

    targets: Tensor


@dataclass(frozen=True)
class GradVac(Method[GradVacState]):
    r"""Each gradient is turned, one after another in random order, until its cosine with every other is what it usually is.

    .. math:: g_i' \leftarrow g_i' + \frac{\lVert g_i' \rVert \big( \phi_{ij} \sqrt{1 - c^2} - c \sqrt{1 - \phi_{ij}^2} \big)}
              {\lVert g_j \rVert \sqrt{1 - \phi_{ij}^2}} \, g_j \quad \text{where } c = \cos(g_i', g_j) < \phi_{ij},
              \qquad d = \sum_i g_i'

    and then, whether turned or not, phi_ij moves to (1 - beta) phi_ij + beta c. All cosines follow from the Gramian.

    Args:
        beta: how fast the targets move, in [0, 1].

    Example:
        >>> from paretorch.core.method.weights import weights
        >>> weights(GradVac(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789], dtype=torch.float64)

    References:
        Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models",
        ICLR 2021, section 3 and its algorithm. Targets count as 0.99 at most; pairs with a zero gradient are passed over.
    """

    beta: float = 1e-2
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"beta": Range(1e-4, 0.5, log=True)}
    random = True

    def __post_init__(self) -> None:
        share("beta", self.beta, "[]")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> GradVacState:
        return GradVacState(like.new_zeros(len(tasks), len(tasks)))

    def balance(self, evidence: Evidence, state: GradVacState) -> tuple[Balance, GradVacState]:
        present = evidence.present.numpy()
        targets = state.targets.numpy()[np.ix_(present, present)]
        gramian = evidence.needed("gramian")
        if len(gramian) == 2:
            weights, targets = self._of_two(gramian, targets)
        else:
            weights, targets = self._in_turn(gramian, targets, evidence.generator)
        everyone = state.targets.numpy().copy()
        everyone[np.ix_(present, present)] = targets
        return Balance(torch.from_numpy(weights)), GradVacState(torch.from_numpy(everyone))

    def _of_two(self, gramian: Tensor, targets: Array) -> tuple[Array, Array]:
        """(2,) weights and (2, 2) the next targets: there is one order only."""
        (first, cross), (_, second) = gramian.tolist()
        if min(first, second) <= 0:
            return np.array([float(first > 0), float(second > 0)]), targets
        lengths = math.sqrt(first), math.sqrt(second)
        cosine = min(max(cross / lengths[0] / lengths[1], -1.0), 1.0)
        weights, moved = [1.0, 1.0], targets.copy()
        for task, other in ((0, 1), (1, 0)):
            target = float(targets[task, other])
            aim = min(max(target, -LARGEST), LARGEST)
            if cosine < aim:
                share = aim * math.sqrt((1 - cosine**2) / (1 - aim**2)) - cosine
                weights[other] += share * lengths[task] / lengths[other]
            moved[task, other] = (1 - self.beta) * target + self.beta * cosine
        return np.array(weights), moved

    def _in_turn(self, gramian: Tensor, before: Array, generator: torch.Generator | None) -> tuple[Array, Array]:
        """(T,) weights and (T, T) the next targets, each gradient going through the others in an order of its own."""
        cosines, lengths = unit_rows(gramian)
        tasks, targets = len(lengths), before.copy()
        rows = np.arange(tasks)
        order = torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).numpy().argsort(axis=1)
        turned = np.eye(tasks)  # row i: g_i' / n_i in terms of the unit gradients
        products = cosines.copy()  # <g_i' / n_i, u_j>
        for against in order.T:
            own = np.sqrt(np.maximum((products * turned).sum(axis=1), 0.0))
            counts = (against != rows) & (own > VANISHED) & (lengths[against] > 0)
            cosine = np.clip(products[rows, against] / np.where(counts, own, 1.0), -1.0, 1.0)
            target = targets[rows, against]
            aim = np.clip(target, -LARGEST, LARGEST)
            needed = aim * np.sqrt((1 - cosine**2) / (1 - aim**2)) - cosine
            share = np.where(counts & (cosine < aim), own * needed, 0.0)
            turned[rows, against] += share
            products += share[:, None] * cosines[against]
            targets[rows, against] = np.where(counts, (1 - self.beta) * target + self.beta * cosine, target)
        weights: Array = np.divide(lengths @ turned, lengths, out=np.zeros(tasks), where=lengths > 0)
        return weights, targets
