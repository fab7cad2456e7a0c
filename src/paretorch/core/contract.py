"""What a balancing method is: a frozen value, what it needs to see, and pure functions from evidence to weights.

Read this page first. A method never learns where its evidence comes from (features or parameters, one process or many); the
doors that collect evidence (:class:`~paretorch.Fork`, :class:`~paretorch.Balancer`) never compare a method's name.
Below, ``T`` is the number of tasks that are present in this step and ``all`` the number of declared ones.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from paretorch.core.search_space import SearchSpace
from paretorch.core.shapes import PerTask, Row, TaskMask, TaskRows, TaskSquare
from paretorch.core.solvers.minimum_norm import cosines, norms
from paretorch.core.step_record import compared, per_task, table
from paretorch.former_names import FormerAttribute, warn_renamed


class Need(enum.Flag):
    """What a method must see. One of the three, or a gradient kind joined with ``LOSSES`` where values are wanted beside."""

    LOSSES = enum.auto()
    GRAMIAN = enum.auto()
    JACOBIAN = enum.auto()


class Status(enum.Enum):
    """How a step's solve ended."""

    SOLVED = "solved"
    STATIONARY = "stationary"  # no direction descends for every task: the gradients (nearly) cancel
    NOT_CONVERGED = "not converged"  # the solver stopped above its tolerance
    NONFINITE = "nonfinite"  # some loss or gradient was inf or nan
    ABSENT = "absent"  # no task was present, or one that the method needs has never been


@dataclass(frozen=True)
class Evidence:
    """What a method may look at in one step: float64 on the host, except the Jacobian, which stays where it was computed.

    Args:
        tasks: (T,) names of the tasks that are present.
        present: (all,) which of the declared tasks those are: a method with state per task indexes it with this mask.
        losses: (T,) loss values, averaged over ranks; None unless the method asks or they are known anyway.
        gramian: (T, T) inner products of the task gradients.
        cross: (T, T) inner products of the gradients on a first with those on a second batch, where the method takes several.
        jacobian: (T, n) the task gradients themselves, this rank's part of the batch.
        factor: (T,) dTotal/dL_t by which ``losses`` were multiplied before backward; ones when unknown.
        generator: random numbers, equal on all ranks.
        features: (B, D) the point at which a (T, B * D) Jacobian was taken; None on the surface of parameters.
        on_parameters: whether a coordinate of the Jacobian is the same number on all ranks, of which each has the part that its
            batch contributes; on features every rank has coordinates of its own.
        total: sums a tensor over ranks.
        resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.
    """

    tasks: tuple[str, ...]
    present: TaskMask
    losses: PerTask | None = None
    gramian: TaskSquare | None = None
    cross: TaskSquare | None = None
    jacobian: TaskRows | None = None
    factor: PerTask | None = None
    generator: torch.Generator | None = None
    features: Tensor | None = None
    on_parameters: bool = False
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    resolution: float = torch.finfo(torch.float64).eps

    @cached_property
    def norms(self) -> PerTask:
        """(T,) lengths of the task gradients."""
        return norms(self.needed("gramian"))

    @cached_property
    def cosines(self) -> TaskSquare:
        """(T, T) cosines between the task gradients; the row of a zero gradient is zero."""
        return cosines(self.needed("gramian"))

    def needed(self, what: str) -> Tensor:
        """The evidence called ``what``, which the method's ``needs`` promises to be there."""
        value: Tensor | None = getattr(self, what)
        assert value is not None, f"evidence has no {what}: the method's needs do not ask for it"
        return value


@dataclass(frozen=True, repr=False)
class Balance:
    """The result of a step. A method fills the first four fields; Fork and Balancer add the rest, for all declared tasks.

    What a Fork or a Balancer records looks the same for every method: ``weights``, ``heads``, ``present``, ``losses`` and
    ``factor`` have one entry for each declared task, in declared order, whichever tasks were present. ``print(balance)`` shows
    a table.

    Args:
        weights: (T,) what each task's gradient (loss, for loss methods) is multiplied by, zero for absent tasks; None for
            Jacobian methods, which combine the gradients entry by entry and have no weights.
        status: how the solve ended.
        update: (n,) the combined gradient of a Jacobian method.
        heads: (T,) what the gradients of a task's own parameters were multiplied by: the weights under ``heads="weighted"`` and
            for loss methods, else 1 unless the method says more. In a method's answer: what a Balancer is to multiply them by
            under ``heads="own"``; None: 1.
        tasks: (all,) names.
        present: (all,) mask of the tasks that took part.
        gramian: (all, all) inner products of the task gradients; None where they were not compared.
        losses: (all,) loss values, nan where unknown.
        factor: (all,) dTotal/dL_t, nan where unknown.
        gap: cosines between the features' update and the exact one, where the Fork was asked to measure them.

    Example:
        >>> gramian = torch.tensor([[4.0, -2.0], [-2.0, 4.0]])
        >>> balance = Balance(torch.tensor([1.0, 1.0]), tasks=("seg", "depth"), gramian=gramian)
        >>> balance
        Balance(status=solved)
          task   weight  norm  lowest cosine
          seg         1     2           -0.5
          depth       1     2           -0.5
        >>> balance.scalars("balance")["balance/cosine/seg/depth"]
        -0.5
    """

    weights: PerTask | None
    status: Status = Status.SOLVED
    update: Row | None = None
    heads: PerTask | None = None
    tasks: tuple[str, ...] = ()
    present: Tensor | None = None
    gramian: Tensor | None = None
    losses: Tensor | None = None
    factor: Tensor | None = None
    gap: dict[str, float] = field(default_factory=dict)

    @property
    def norms(self) -> Tensor:
        """(all,) lengths of the task gradients; zero for absent tasks.

        Raises:
            AttributeError: where the step has no Gramian.
        """
        return norms(self._compared("norms"))

    @property
    def cosines(self) -> Tensor:
        """(all, all) cosines between the task gradients; the row of an absent task is zero.

        Raises:
            AttributeError: where the step has no Gramian.
        """
        return cosines(self._compared("cosines"))

    def _compared(self, what: str) -> Tensor:
        if self.gramian is None:
            raise AttributeError(
                f"this step has no {what}: the tasks' gradients were not compared, because the method looks at the losses alone "
                "or the weights of an earlier step were reused (every=); where .gramian is not None there are some"
            )
        return self.gramian

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """What is known, as plain numbers for a logger.

        Args:
            prefix: put before every name, with a slash; empty: nothing.

        Returns:
            dict with ``weight/TASK``, ``head/TASK`` (where it is neither 1 nor the weight), ``loss/TASK``, ``norm/TASK``,
            ``cosine/TASK/OTHER`` for each pair of present tasks in declared order, and ``gap/NAME``; no unknown numbers.
        """
        heads = self.heads
        if heads is not None and self.weights is not None:
            heads = torch.where(heads == self.weights, 1.0, heads)
        columns = {"weight": self.weights, "head": heads, "loss": self.losses}
        numbers = per_task(
            self._names, {kind: column.tolist() for kind, column in columns.items() if column is not None}
        )
        if self.gramian is not None:
            here = [True] * len(self._names) if self.present is None else self.present.tolist()
            numbers |= compared(self._names, here, self.norms.tolist(), self.cosines.tolist())
        numbers |= {f"gap/{name}": float(value) for name, value in self.gap.items()}
        return {f"{prefix}/{name}" if prefix else name: value for name, value in numbers.items()}

    def __repr__(self) -> str:
        title = ", ".join([f"status={self.status.value}", *(f"{name}={value:.4g}" for name, value in self.gap.items())])
        here = None if self.present is None else self.present.tolist()
        return f"Balance({title})\n{table(self._names, here, self.scalars())}"

    @property
    def _names(self) -> tuple[str, ...]:
        return self.tasks or tuple(map(str, range(0 if self.weights is None else len(self.weights))))


S = TypeVar("S")  # a method's state: a NamedTuple of tensors, or None


class Method(Generic[S]):
    """A rule that turns T losses and, if it asks, their gradients into one update. Subclasses are frozen dataclasses."""

    needs: ClassVar[Need]
    homogeneous: ClassVar[bool] = True  # of degree one in the gradients
    homogeneous_on_paper: ClassVar[bool] = True  # also with scale="paper"
    random: ClassVar[bool] = False  # draws from evidence.generator
    batches: ClassVar[int] = 1  # independent batches per step; more than one: Balancer only
    features: ClassVar[bool] = True  # can be used on features; False: Balancer only
    observes: ClassVar[bool] = False  # wants the losses after the step as well
    search_space: ClassVar[SearchSpace] = {}  # the options that a study may tune
    space = FormerAttribute("search_space")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "space" in cls.__dict__:
            warn_renamed(f"the class attribute {cls.__name__}.space", f"{cls.__name__}.search_space")
            cls.search_space = cls.__dict__["space"]

    def init(self, tasks: tuple[str, ...], like: Tensor) -> S:
        """The state before the first step, on the device and in the dtype of ``like``; also checks the task names."""
        return None  # type: ignore[return-value]

    def balance(self, evidence: Evidence, state: S) -> tuple[Balance, S]:
        """Weights (or an update) at the paper's scale, and the next state. Pure."""
        raise TypeError(f"{type(self).__name__} is a Method without balance()")

    def gain(self, tasks: int) -> float:
        """The c for which T equal gradients g give the update c g at the paper's scale."""
        return float(tasks)

    def calibrated(self, evidence: Evidence, state: S) -> tuple[Balance, S]:
        """As :meth:`balance`, scaled so that T equal gradients g give T g, as the plain sum of losses does."""
        balance, state = self.balance(evidence, state)
        scale = len(evidence.tasks) / self.gain(len(evidence.tasks))
        weights = None if balance.weights is None else balance.weights * scale
        update = None if balance.update is None else balance.update * scale
        return Balance(weights, balance.status, update, balance.heads), state

    def observe(self, losses: Tensor, state: S) -> S:
        """The next state, given the (all,) losses on the same batch after the step, nan where absent."""
        raise TypeError(f"{type(self).__name__} does not look at the losses after the step: leave observe() out")

    def end_epoch(self, state: S) -> S:
        """The state at the end of an epoch, for methods that count in epochs."""
        return state
