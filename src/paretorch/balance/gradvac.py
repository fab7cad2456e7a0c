"""Gradient vaccine (Wang, Tsvetkov, Firat & Cao, ICLR 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_fraction
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.gramian import cosines_and_norms

LARGEST = 0.99  # a target: no finite multiple reaches a cosine of 1
VANISHED = 1e-7  # of the original length: a shorter vector is rounding and has no direction


class GradVacState(NamedTuple):
    """``targets`` (all, all): phi_ij, the target cosine between the gradients of tasks i and j."""

    targets: Tensor


@dataclass(frozen=True)
class GradVac(Method[GradVacState]):
    r"""The sum of the gradients after each is rotated, in random order, to a target cosine with every other gradient.

    .. math:: g_i' \leftarrow g_i' + \frac{\lVert g_i' \rVert \big( \phi_{ij} \sqrt{1 - c^2} - c \sqrt{1 - \phi_{ij}^2} \big)}
              {\lVert g_j \rVert \sqrt{1 - \phi_{ij}^2}} \, g_j \quad \text{where } c = \cos(g_i', g_j) < \phi_{ij},
              \qquad d = \sum_i g_i'

    Each target is the running mean of its cosine: phi_ij becomes (1 - beta) phi_ij + beta c. All cosines follow from the Gramian.

    Args:
        beta: weight of the new cosine in a target, in [0, 1].

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.GradVac(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789], dtype=torch.float64)

    References:
        Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models",
        ICLR 2021, section 3 and its algorithm. Targets are at most 0.99; pairs with a zero gradient are skipped.
    """

    beta: float = 1e-2
    needs = Need.GRAMIAN
    search_space: ClassVar[SearchSpace] = {"beta": Range(1e-4, 0.5, log=True)}
    random = True

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta, "[]")

    def init(self, tasks: tuple[str, ...], like: Tensor) -> GradVacState:
        return GradVacState(like.new_zeros(len(tasks), len(tasks)))

    def balance(self, evidence: Evidence, state: GradVacState) -> tuple[Balance, GradVacState]:
        present = evidence.present.numpy()
        targets = state.targets.numpy()[np.ix_(present, present)]
        gramian = evidence.needed("gramian")
        if len(gramian) == 2:
            weights, targets = self._of_two(gramian, targets)
        else:
            weights, targets = self._of_many(gramian, targets, evidence.generator)
        updated = state.targets.numpy().copy()
        updated[np.ix_(present, present)] = targets
        return Balance(torch.from_numpy(weights)), GradVacState(torch.from_numpy(updated))

    def _of_two(self, gramian: Tensor, targets: Array) -> tuple[Array, Array]:
        """(2,) weights and (2, 2) the next targets: two tasks have one order only."""
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

    def _of_many(self, gramian: Tensor, before: Array, generator: torch.Generator | None) -> tuple[Array, Array]:
        """(T,) weights and (T, T) the next targets; each gradient has its own random order of the others."""
        cosines, lengths = cosines_and_norms(gramian)
        tasks, targets = len(lengths), before.copy()
        rows = np.arange(tasks)
        order = torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).numpy().argsort(axis=1)
        rotated = np.eye(tasks)  # row i: g_i' / n_i as a combination of the unit gradients
        products = cosines.copy()  # <g_i' / n_i, u_j>
        for against in order.T:
            own = np.sqrt(np.maximum((products * rotated).sum(axis=1), 0.0))
            applies = (against != rows) & (own > VANISHED) & (lengths[against] > 0)
            cosine = np.clip(products[rows, against] / np.where(applies, own, 1.0), -1.0, 1.0)
            target = targets[rows, against]
            aim = np.clip(target, -LARGEST, LARGEST)
            needed = aim * np.sqrt((1 - cosine**2) / (1 - aim**2)) - cosine
            share = np.where(applies & (cosine < aim), own * needed, 0.0)
            rotated[rows, against] += share
            products += share[:, None] * cosines[against]
            targets[rows, against] = np.where(applies, (1 - self.beta) * target + self.beta * cosine, target)
        weights: Array = np.divide(lengths @ rotated, lengths, out=np.zeros(tasks), where=lengths > 0)
        return weights, targets
