"""The contract of balancing methods: a frozen value, the evidence it needs, and pure functions from evidence to weights.

A method does not depend on where its evidence is computed (features or parameters, one process or many),
and the code that computes evidence (:class:`~paretorch.Fork`, :class:`~paretorch.Balancer`) never compares a method's name.
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
from paretorch.core.solvers.gramian import cosines, norms
from paretorch.core.step_record import compared, per_task, table
from paretorch.former_names import FormerAttribute, warn_renamed


class Need(enum.Flag):
    """The evidence that a method needs: ``LOSSES``, ``GRAMIAN`` or ``JACOBIAN``; the last two also combined with ``LOSSES``."""

    LOSSES = enum.auto()
    GRAMIAN = enum.auto()
    JACOBIAN = enum.auto()


class Status(enum.Enum):
    """How a step's solve ended."""

    SOLVED = "solved"
    STATIONARY = "stationary"  # no direction descends for every task: the gradients (nearly) cancel
    NOT_CONVERGED = "not converged"  # the solver stopped above its tolerance
    NONFINITE = "nonfinite"  # a loss or gradient was inf or nan
    ACCUMULATED = "accumulated"  # the gradients of a micro-batch were added up; a later one ends the step
    ABSENT = "absent"  # no task was present, or one that the method needs has not been present yet


@dataclass(frozen=True)
class Evidence:
    """The evidence of one step: float64 on the host, except the Jacobian, which is on the device of the gradients.

    Args:
        tasks: (T,) names of the tasks that are present.
        present: (all,) mask of these tasks among the declared ones, which indexes a state per task.
        losses: (T,) loss values, averaged over ranks; None where they are not known.
        gramian: (T, T) inner products of the task gradients.
        cross: (T, T) inner products of the gradients on a first with those on a second batch, where the method takes several.
        jacobian: (T, n) the task gradients on this rank's part of the batch.
        factor: (T,) dTotal/dL_t by which ``losses`` were multiplied before backward; ones when unknown.
        generator: random numbers, equal on all ranks.
        features: (B, D) the point at which a (T, B * D) Jacobian was taken; None on parameters.
        on_parameters: whether the Jacobian is that of parameters, whose coordinates are the same on all ranks, and each rank has
            the contribution of its batch; on features every rank has coordinates of its own.
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
        """The field ``what``, which the method's ``needs`` include.

        Raises:
            ValueError: they do not.
        """
        value: Tensor | None = getattr(self, what)
        if value is None:
            raise ValueError(f"the evidence has no {what}: add it to the method's needs, or the losses were not given")
        return value


@dataclass(frozen=True, repr=False)
class Balance:
    """The result of a step. A method fills the first four fields; Fork and Balancer add the rest, for all declared tasks.

    The record of a Fork or a Balancer has the same form for every method: ``weights``, ``heads``, ``present``, ``losses`` and
    ``factor`` have one entry for each declared task, in declared order, whichever tasks were present. ``print(balance)`` prints
    a table.

    Args:
        weights: (T,) factors of the tasks' gradients (losses, for loss methods), zero for absent tasks; None for Jacobian
            methods, which combine the gradients entry by entry and have no weights.
        status: how the solve ended.
        update: (n,) the combined gradient of a Jacobian method.
        heads: (T,) factors of the gradients of a task's own parameters: the weights under ``heads="weighted"`` and for loss
            methods, else 1 unless the method gives others. In the result of a method: the factors that a Balancer applies under
            ``heads="own"``; None: 1.
        tasks: (all,) names.
        present: (all,) mask of the present tasks.
        gramian: (all, all) inner products of the task gradients; None where they were not compared.
        losses: (all,) loss values, nan where unknown.
        factor: (all,) dTotal/dL_t, nan where unknown.
        gap: cosines between the features' update and the exact one, in steps in which the Fork measures them.

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
                f"this step has no {what}: the tasks' gradients were not compared, because the method needs losses alone "
                "or the weights of an earlier step were reused (every=); steps whose .gramian is not None have them"
            )
        return self.gramian

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """The known numbers of the step, for a logger.

        Args:
            prefix: of every name, before a slash; empty: none.

        Returns:
            dict with ``weight/TASK``, ``head/TASK`` (where it differs from 1 and from the weight), ``loss/TASK``, ``norm/TASK``,
            ``cosine/TASK/OTHER`` for each pair of present tasks in declared order, and ``gap/NAME``; without unknown numbers.
        """
        heads = self.heads
        if heads is not None and self.weights is not None:
            heads = torch.where(heads == self.weights, 1.0, heads)
        columns = {"weight": self.weights, "head": heads, "loss": self.losses}
        numbers = per_task(
            self._names, {kind: column.tolist() for kind, column in columns.items() if column is not None}
        )
        if self.gramian is not None:
            present = [True] * len(self._names) if self.present is None else self.present.tolist()
            numbers |= compared(self._names, present, self.norms.tolist(), self.cosines.tolist())
        numbers |= {f"gap/{name}": float(value) for name, value in self.gap.items()}
        return {f"{prefix}/{name}" if prefix else name: value for name, value in numbers.items()}

    def __repr__(self) -> str:
        title = ", ".join([f"status={self.status.value}", *(f"{name}={value:.4g}" for name, value in self.gap.items())])
        present = None if self.present is None else self.present.tolist()
        norms = None if self.gramian is None else self.norms.tolist()
        return f"Balance({title})\n{table(self._names, present, self.scalars(), norms)}"

    @property
    def _names(self) -> tuple[str, ...]:
        return self.tasks or tuple(map(str, range(0 if self.weights is None else len(self.weights))))


S = TypeVar("S")  # a method's state: a NamedTuple of tensors, or None


class Method(Generic[S]):
    """A rule that combines T losses and, where it needs them, their gradients into one update, as a frozen dataclass."""

    needs: ClassVar[Need]
    homogeneous: ClassVar[bool] = True  # of degree one in the gradients
    homogeneous_on_paper: ClassVar[bool] = True  # also with scale="paper"
    random: ClassVar[bool] = False  # draws from evidence.generator
    batches: ClassVar[int] = 1  # independent batches per step; more than one: Balancer only
    features: ClassVar[bool] = True  # can be used on features; False: Balancer only
    observes: ClassVar[bool] = False  # uses the losses after the step as well
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
        raise TypeError(f"{type(self).__name__} does not use the losses after the step: leave observe() out")

    def end_epoch(self, state: S) -> S:
        """The state at the end of an epoch, for methods that count in epochs."""
        return state
