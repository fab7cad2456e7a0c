"""Scalarizations: objectives of one value, from T losses and a preference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scalarization:
    """A function s(L; w). Subclasses are frozen dataclasses that define :meth:`value`."""

    def value(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N,) values, differentiable in the losses.

        Args:
            losses: (N, T), relative to the ideal point.
            preferences: (N, T) on the simplex.
        """
        raise TypeError(f"{type(self).__name__} is a Scalarization without value()")

    def weights(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N, T) derivatives ds/dL, the weights of the task gradients.

        Args:
            losses: (N, T), relative to the ideal point, without a graph.
            preferences: (N, T) on the simplex.
        """
        with torch.enable_grad():
            at = losses.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(self.value(at, preferences.to(at)).sum(), at)
        return found


@dataclass(frozen=True)
class WeightedSum(Scalarization):
    r"""The weighted sum, whose minima are on convex parts of a front only.

    .. math:: s(L; w) = \sum_t w_t L_t

    Example:
        >>> WeightedSum().value(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.25, 0.75]]))
        tensor([2.5000])
    """

    def value(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N,) values; see :meth:`Scalarization.value`."""
        return (preferences * losses).sum(dim=1)


@dataclass(frozen=True)
class Tchebycheff(Scalarization):
    r"""The largest weighted loss, plus a small multiple of the sum so that every task has a gradient.

    .. math:: s(L; w) = \max_t w_t L_t + \rho \sum_t w_t L_t

    Every Pareto optimal point is a minimum. ``augment=0`` is the plain Tchebycheff, whose minima may be weakly optimal only.

    Args:
        augment: rho, at least 0.

    Example:
        >>> Tchebycheff(augment=0.0).weights(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor([[0.0000, 0.5000]])

    References:
        Steuer & Choo, "An interactive weighted Tchebycheff procedure", Mathematical Programming 1983. Theirs adds rho times the
        unweighted sum; ours is weighted, so that a task of weight zero has no gradient.
    """

    augment: float = 0.0

    def __post_init__(self) -> None:
        _at_least_zero("augment", self.augment)

    def value(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N,) values; see :meth:`Scalarization.value`."""
        weighted = preferences * losses
        return weighted.max(dim=1).values + self.augment * weighted.sum(dim=1)


@dataclass(frozen=True)
class AugmentedTchebycheff(Tchebycheff):
    """:class:`Tchebycheff` with rho = .05.

    Args:
        augment: rho, at least 0.

    Example:
        >>> AugmentedTchebycheff().value(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
        tensor([1.6000])
    """

    augment: float = 0.05


@dataclass(frozen=True)
class SmoothTchebycheff(Scalarization):
    r"""A smooth maximum of the weighted losses: every task has a positive weight in each step.

    .. math:: s(L; w) = \mu \log \sum_t e^{w_t L_t / \mu} + \rho \sum_t L_t, \qquad
              \frac{\partial s}{\partial L_t} = w_t\, \mathrm{softmax}_t(w L / \mu) + \rho

    Args:
        mu: smoothing in units of the weighted losses, above 0; the limit at 0 is the maximum.
        augment: rho, at least 0; above 0, tasks of weight zero are minimized too.

    Example:
        >>> SmoothTchebycheff(mu=1.0).weights(torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]))
        tensor([[0.1250, 0.3750]])

    References:
        Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024, eq. (9). The term with rho
        is by Steuer & Choo.
    """

    mu: float = 0.1
    augment: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mu) and self.mu > 0):
            raise ValueError(f"mu is above 0, got {self.mu}")
        _at_least_zero("augment", self.augment)

    def value(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N,) values; see :meth:`Scalarization.value`."""
        return self.mu * torch.logsumexp(preferences * losses / self.mu, dim=1) + self.augment * losses.sum(dim=1)


@dataclass(frozen=True)
class PBI(Scalarization):
    r"""Penalty boundary intersection: the distance along the preference's ray, plus ``theta`` times the distance from it.

    .. math:: s(L; w) = d_1 + \theta d_2, \quad d_1 = L^T u, \quad d_2 = \lVert L - d_1 u \rVert, \quad
              u_t \propto \frac{1}{\max(w_t, \epsilon)}

    Args:
        theta: factor of the distance from the ray, at least 0.
        floor: epsilon, lower bound of the entries of a preference, in (0, 1).

    Example:
        >>> PBI().value(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.5]]))
        tensor([1.4142])

    References:
        Zhang & Li, "MOEA/D", IEEE Transactions on Evolutionary Computation 2007, section III-A.3. Their ray is w,
        so that a larger entry means a larger loss; ours is u, as for Tchebycheff.
    """

    theta: float = 5.0
    floor: float = 0.02

    def __post_init__(self) -> None:
        _at_least_zero("theta", self.theta)
        if not 0 < self.floor < 1:
            raise ValueError(f"floor is in (0, 1), got {self.floor}")

    def value(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """(N,) values; see :meth:`Scalarization.value`."""
        unit = torch.nn.functional.normalize(1 / preferences.clamp_min(self.floor), dim=1)
        along = (losses * unit).sum(dim=1)
        off_ray = (losses - along[:, None] * unit).square().sum(dim=1)
        # the norm is not differentiable at zero: on the ray its derivative is taken as zero
        distance = torch.where(off_ray > 0, off_ray, 1.0).sqrt() * (off_ray > 0)
        return along + self.theta * distance


def _at_least_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is at least 0, got {value}")
