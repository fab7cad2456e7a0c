"""Transfer matrices: whose weights each model of a front takes over, and how much of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.core.checks import is_number
from paretorch.former_names import former_members

ROW = 1e-6  # by which a row of a given matrix may miss one
REACH = 2.0  # default tau, in squared distances of neighbouring preferences


@former_members({"looks_at_gradients": "needs_cosines"})
@dataclass(frozen=True)
class Transfer:
    """What makes a row-stochastic, non-negative matrix M (N, N): model i becomes sum_j M_ij theta_j minus its own step."""

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N) coefficients.

        Args:
            preferences: (N, T) on the simplex.
            rate: the present learning rate over the first, in [0, 1] unless it grew.
            cosines: (N, N) between the models' gradients, where :attr:`needs_cosines` asks for them.
        """
        raise TypeError(f"{type(self).__name__} is a Transfer without matrix()")

    @property
    def needs_cosines(self) -> bool:
        """Whether :meth:`matrix` needs cosines."""
        return False

    @property
    def gate(self) -> bool:
        """Whether a model listens only where that helps."""
        return False

    @property
    def adopts(self) -> bool:
        """Of a gate: whether a model may take another's place."""
        return False

    @property
    def growth(self) -> float:
        """Of a gate: by which trust grows; 1: it does not."""
        return 1.0


@dataclass(frozen=True)
class Neighbours(Transfer):
    r"""Models of similar preferences, the more the nearer; fades as the learning rate does.

    .. math:: M_{ij} = (1 - \rho)\,[i = j] + \rho\, \mathrm{softmax}_{j \in \mathcal{N}_k(i)}
              \big(-\lVert w_i - w_j \rVert^2 / \tau\big)

    Args:
        rho: share that is taken over, in [0, 1].
        tau: squared distance of preferences at which influence falls to 1/e, above 0; None: twice the median of the squared
            distances from each preference to the nearest other, so that it fits every N and T.
        nearest: k, the models other than itself that one listens to; None: all.

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
        apart = nearest[(nearest > 0) & nearest.isfinite()]
        return REACH * float(apart.median()) if len(apart) else 1.0  # of equal preferences all are equally near


@dataclass(frozen=True)
class Cosine(Transfer):
    r"""Models whose gradients point the same way.

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
        no division by N - 1: with more than two, rows would not stay stochastic.
    """

    amount: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 2:
            raise ValueError(f"amount is in [0, 2], got {self.amount}")

    @property
    def needs_cosines(self) -> bool:
        """It does."""
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
    """A matrix of one's own.

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
    r"""Another transfer, from which a model takes only what descends its own scalarization, and no more than it may trust.

    With the displacement D_i = sum_j M_ij (theta_j - theta_i) and the step's learning rate eta, model i moves by t D_i,

    .. math:: t = \min\Big(1, \frac{2 c_i \eta\, |\langle \nabla F_i, D_i \rangle|}{\lVert D_i \rVert^2}\Big)
              \text{ if } \langle \nabla F_i, D_i \rangle < 0, \text{ else } 0

    For an L-smooth F_i, eta <= 1/(2L) and c_i = 1, F_i then falls by at least 3/4 eta times the squared gradient, which is what
    plain descent at eta = 1/(2L) is sure of. That takes the worst curvature for granted in every direction, and lets the transfer
    move a model no further than twice its own step. So the trust c_i is learnt: the next step's losses, which cost nothing, tell
    whether F_i did fall by 3/4 eta times the squared gradient. Where it did, c_i is multiplied by ``growth``; where not, it
    is divided by four, to no less than one. Of other optimizers than gradient descent, eta is the ratio
    -<grad F_i, step> / ||grad F_i||^2 of the step that was taken.

    Where nothing that a model hears descends F_i, it may still lie in a worse valley than another does. All models see the same
    batches, so F_i at every model's losses is known. One whose losses were better for F_i in three steps in a row, by more than
    the model's own step is sure of, has its place taken, buffers and the optimizer's moments included: row i of M is its unit
    vector.

    Args:
        of: the transfer that is gated.
        growth: of trust, at least 1; 1: c_i = 1, the bound alone.
        adopts: whether a model may take another's place; never where only encoders are transferred, or while preferences move.

    Raises:
        ValueError: ``of`` is gated itself, or growth is below one.

    Example:
        >>> Gated().of
        Neighbours(rho=0.9, tau=None, nearest=None)

    References:
        The condition is that of Theorem 1 of Bai, Gupta & Ong, "Multi-task gradient descent", 2024, as far as it can be computed;
        trust grows and falls as the radius in Conn, Gould & Toint, "Trust-region methods", 2000, section 6.1. Both are ours here.
    """

    of: Transfer = Neighbours()
    growth: float = 2.0  # in the place of the property
    adopts: bool = True  # likewise

    def __post_init__(self) -> None:
        if self.of.gate:
            raise ValueError("a gate within a gate: write Gated(Neighbours())")
        if not (math.isfinite(self.growth) and self.growth >= 1):
            raise ValueError(f"growth is at least 1, got {self.growth}")

    @property
    def needs_cosines(self) -> bool:
        """As the transfer that is gated."""
        return self.of.needs_cosines

    @property
    def gate(self) -> bool:
        """It is one."""
        return True

    def matrix(self, preferences: Tensor, rate: float, cosines: Tensor | None) -> Tensor:
        """(N, N); see :meth:`Transfer.matrix`."""
        return self.of.matrix(preferences, rate, cosines)
