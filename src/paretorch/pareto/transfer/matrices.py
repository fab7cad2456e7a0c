"""Transfer matrices between the models of a front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.core.option_checks import is_number
from paretorch.former_names import former_members

ROW = 1e-6  # tolerance of a row sum
REACH = 2.0  # default tau, in squared distances of neighbouring preferences


@former_members(looks_at_gradients="needs_cosines")
@dataclass(frozen=True)
class Transfer:
    """A row-stochastic, non-negative matrix M (N, N): model i becomes sum_j M_ij theta_j minus its own step."""

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N) coefficients.

        Args:
            preferences: (N, T) on the simplex.
            rate: the current learning rate relative to the first, in [0, 1] unless it has increased.
            cosines: (N, N) between the models' gradients, if :attr:`needs_cosines`.
        """
        raise TypeError(f"{type(self).__name__} is a Transfer without matrix()")

    @property
    def needs_cosines(self) -> bool:
        """Whether :meth:`matrix` needs cosines."""
        return False

    @property
    def gate(self) -> bool:
        """Whether a model is displaced only if that decreases its objective."""
        return False

    @property
    def adopts(self) -> bool:
        """Of a gate: whether a model may adopt the parameters of another."""
        return False

    @property
    def growth(self) -> float:
        """Of a gate: factor by which trust increases; 1: it is constant."""
        return 1.0


@dataclass(frozen=True)
class Neighbours(Transfer):
    r"""Coefficients that decrease with the distance of preferences; proportional to the learning rate.

    .. math:: M_{ij} = (1 - \rho)\,[i = j] + \rho\, \mathrm{softmax}_{j \in \mathcal{N}_k(i)}
              \big(-\lVert w_i - w_j \rVert^2 / \tau\big)

    Args:
        rho: share of other models, in [0, 1].
        tau: squared distance of preferences at which coefficients decrease to 1/e, above 0; None: twice the median of the
            squared distances to the nearest other preference.
        nearest: k, the number of other models with a coefficient above zero; None: all.

    Example:
        >>> Neighbours(rho=0.5, nearest=1).matrix(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1.0, None)[0, 2]
        tensor(0.)

    References:
        Bai, Gupta & Ong, "Multi-task gradient descent", 2024, section 4: M is any row-stochastic matrix; this form is ours.
    """

    rho: float = 0.9
    tau: float | None = None
    nearest: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho is a share in [0, 1], got {self.rho}")
        if self.tau is not None and not (math.isfinite(self.tau) and self.tau > 0):
            raise ValueError(f"tau is above 0, got {self.tau}")
        if self.nearest is not None and self.nearest < 1:
            raise ValueError(f"nearest is at least 1 model, or None for all, got {self.nearest}")

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N); see :meth:`Transfer.matrix`."""
        count = len(preferences)
        square = (preferences[:, None, :] - preferences[None, :, :]).square().sum(dim=2)
        tau = self._reach(square) if self.tau is None else self.tau
        if self.nearest is not None and self.nearest + 1 < count:
            far = square.argsort(dim=1, stable=True)[:, self.nearest + 1 :]
            square = square.scatter(1, far, torch.inf)
        rho = self.rho * min(max(rate, 0.0), 1.0)
        own = torch.eye(count, dtype=preferences.dtype)
        return (1 - rho) * own + rho * torch.softmax(-square / tau, dim=1)

    def _reach(self, square: Tensor) -> float:
        others = square + torch.diag(torch.full_like(square[0], torch.inf))
        nearest = others.min(dim=1).values
        distances = nearest[(nearest > 0) & nearest.isfinite()]
        # With equal preferences, all distances are equal.
        return REACH * float(distances.median()) if len(distances) else 1.0


@dataclass(frozen=True)
class Cosine(Transfer):
    r"""Coefficients that increase with the cosine of gradients.

    .. math:: M_{ij} = \frac{a\,\eta_{ij}}{N - 1}, \quad \eta_{ij} = \frac{c_{ij}}{1 + c_{ij}}, \quad
              c_{ij} = \max(\cos(\nabla F_i, \nabla F_j), 0), \qquad M_{ii} = 1 - \sum_{j \ne i} M_{ij}

    Args:
        amount: a, in [0, 2]: c / (1 + c) is at most one half, so the row keeps a non-negative diagonal.

    Example:
        >>> Cosine(amount=1.0).matrix(torch.eye(2), 1.0, torch.ones(2, 2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])

    References:
        Bai, Gupta & Ong, "Multi-task gradient descent for multi-task learning", Memetic Computing 2020, which has two tasks and
        no division by N - 1: with more than two models its rows are not stochastic.
    """

    amount: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 2:
            raise ValueError(f"amount is in [0, 2], got {self.amount}")

    @property
    def needs_cosines(self) -> bool:
        """Always true."""
        return True

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N); see :meth:`Transfer.matrix`."""
        assert cosines is not None
        alike = cosines.clamp(0.0, 1.0)
        found = self.amount * min(max(rate, 0.0), 1.0) * alike / (1 + alike) / max(1, len(cosines) - 1)
        found = found - torch.diag(found.diagonal())
        return found + torch.diag(1 - found.sum(dim=1))


@dataclass(frozen=True)
class Fixed(Transfer):
    """A constant matrix.

    Args:
        rows: (N, N) as nested tuples; non-negative, each row sums to one.

    Raises:
        ValueError: it is not square or not row-stochastic.

    Example:
        >>> Fixed(((0.9, 0.1), (0.2, 0.7)))
        Traceback (most recent call last):
        ...
        ValueError: row 1 of the transfer matrix is [0.2, 0.7]: expected values of at least 0 that sum to 1, got the sum 0.9
    """

    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        rows = self.rows if isinstance(self.rows, tuple | list) else ()
        if not rows or not all(isinstance(row, tuple | list) and all(map(is_number, row)) for row in rows):
            raise ValueError(
                f"a transfer matrix is given as rows of numbers, ((0.9, 0.1), (0.2, 0.8)), got {self.rows!r}"
            )
        for place, row in enumerate(self.rows):
            if len(row) != len(self.rows):
                raise ValueError(f"a transfer matrix is square: row {place} of {len(self.rows)} has {len(row)} values")
            if not all(math.isfinite(value) and value >= 0 for value in row) or abs(sum(row) - 1) > ROW:
                raise ValueError(
                    f"row {place} of the transfer matrix is {list(row)}: expected values of at least 0 that sum to 1, "
                    f"got the sum {sum(row):.6g}"
                )

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N); see :meth:`Transfer.matrix`."""
        if len(self.rows) != len(preferences):
            raise ValueError(f"the transfer matrix has {len(self.rows)} rows for {len(preferences)} models")
        found = torch.tensor(self.rows, dtype=preferences.dtype)
        return found / found.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Gated(Transfer):
    r"""A transfer whose displacement is applied only if it decreases the model's scalarization, and up to a trust bound.

    With the displacement D_i = sum_j M_ij (theta_j - theta_i) and the step's learning rate eta, model i moves by t D_i,

    .. math:: t = \min\Big(1, \frac{2 c_i \eta\, |\langle \nabla F_i, D_i \rangle|}{\lVert D_i \rVert^2}\Big)
              \text{ if } \langle \nabla F_i, D_i \rangle < 0, \text{ else } 0

    A D_i of at most 4 eps ||theta_i||, as the rounding of the sum for equal models, counts as zero.

    For an L-smooth F_i, eta <= 1/(2L) and c_i = 1, F_i decreases by at least 3/4 eta times the squared gradient, the guarantee of
    gradient descent at eta = 1/(2L). That bound assumes the largest curvature in every direction and limits the displacement to
    twice the model's own step. Therefore the trust c_i is adaptive: if F_i on the next batch has decreased by 3/4 eta times the
    squared gradient, c_i is multiplied by ``growth``; otherwise it is divided by four, to at least one. For optimizers other than
    gradient descent, eta is the ratio -<grad F_i, step> / ||grad F_i||^2 of the step.

    If no displacement decreases F_i, the model may still be in a worse local minimum than another one. All models are
    evaluated on the same batches, so F_i at the losses of every model is known. If another model is better for F_i in three
    consecutive steps, by more than the guaranteed decrease of the model's own step, the model adopts its parameters, buffers
    and optimizer moments: row i of M is the unit vector of that model.

    Args:
        of: the gated transfer.
        growth: factor of the trust, at least 1; 1: c_i = 1.
        adopts: whether a model may adopt the parameters of another; ignored if only encoders are transferred or preferences are
            adapted.

    Raises:
        ValueError: ``of`` is gated, or growth is below one.

    Example:
        >>> Gated().of
        Neighbours(rho=0.9, tau=None, nearest=None)

    References:
        The condition is that of Theorem 1 of Bai, Gupta & Ong, "Multi-task gradient descent", 2024, as far as it can be computed;
        trust is updated as the radius in Conn, Gould & Toint, "Trust-region methods", 2000, section 6.1. Both are ours here.
    """

    of: Transfer = Neighbours()
    growth: float = 2.0  # overrides the property
    adopts: bool = True  # overrides the property

    def __post_init__(self) -> None:
        if self.of.gate:
            raise ValueError("a gated transfer cannot be gated again: write Gated(Neighbours())")
        if not (math.isfinite(self.growth) and self.growth >= 1):
            raise ValueError(f"growth is at least 1, got {self.growth}")

    @property
    def needs_cosines(self) -> bool:
        """That of the gated transfer."""
        return self.of.needs_cosines

    @property
    def gate(self) -> bool:
        """Always true."""
        return True

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N); see :meth:`Transfer.matrix`."""
        return self.of.matrix(preferences, rate, cosines)
