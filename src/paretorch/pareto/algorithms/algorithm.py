"""What an algorithm for fronts is: a frozen value that says how each member's task gradients are weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from paretorch.core.checks import one_of
from paretorch.pareto.models.ensemble import View
from paretorch.pareto.scalarize import Scalarization
from paretorch.pareto.transfer.transfer import Transfer

if TYPE_CHECKING:
    from paretorch.pareto.fitting.plan import Plan
    from paretorch.pareto.front import Front
    from paretorch.pareto.models.conditional_model import Family


@dataclass(frozen=True)
class FrontAlgorithm:
    """A way to train a set of models. Subclasses are frozen dataclasses whose fields are their hyperparameters.

    Member i descends sum_t w_it L_t, with the weights that :meth:`weights` gives for it in this step. An algorithm holds no
    parameters and no state: the losses, inner products and preferences that it looks at are handed to it.
    """

    looks_at_gradients: ClassVar[bool] = False  # wants inner products: T backwards per member and step
    conditional: ClassVar[bool] = False  # trains a family, which has a model for every preference, instead of N models
    evolves: ClassVar[bool] = False  # takes no gradients

    def weights(self, view: View) -> Tensor:
        """(n, T) weights of the task gradients of the members in view."""
        raise TypeError(f"{type(self).__name__} is a FrontAlgorithm without weights()")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Refuses preferences, (N, T), that the algorithm cannot use."""

    def family(self, models: list[nn.Module], example: Any) -> Family:
        """What is trained, of T models of the workload and an encoder's inputs; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains a model for each preference: it has no family")

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(W, T) the preferences to train on in the next step; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains a model for each preference: it draws none")

    def objective(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """What a family descends, of (W, T) losses at (W, T) preferences; conditional algorithms without inner products."""
        raise TypeError(f"{type(self).__name__} trains a model for each preference: it has no common objective")

    def evolve(self, plan: Plan, given: Tensor, models: list[nn.Module]) -> Front:
        """The whole search; algorithms that take no gradients only."""
        raise TypeError(f"{type(self).__name__} descends gradients: it does not evolve")

    @property
    def normalizes(self) -> bool:
        """Whether losses are measured in their range, from the ideal to the nadir point."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether the training must be given a point from which hypervolume is measured."""
        moving = self.moving()
        return moving is not None and moving.kind == "hypervolume"

    @property
    def starts(self) -> int:
        """How many models the search begins with; algorithms that take no gradients only."""
        raise TypeError(f"{type(self).__name__} descends gradients: its models are its members")

    def sharing(self) -> Sharing | None:
        """How members learn from one another; None: not at all."""
        return None

    def moving(self) -> Moving | None:
        """What preferences are moved for while training; None: they stay."""
        return None


@dataclass(frozen=True)
class Sharing:
    """How members learn from one another.

    Args:
        transfer: what makes the matrix.
        scalarization: what each member descends, whose fall a gate watches.
        parameters: ``"all"`` or ``"encoder"``.
        fade: whether it fades linearly to nothing at the end of training.
        normalize: whether the scalarization is of losses in their range.
        settled: whether preferences stay. Where they move, who is the better model for whom changes faster than a model gets
            there by itself, and nobody takes another's place.
    """

    transfer: Transfer
    scalarization: Scalarization
    parameters: str = "all"
    fade: bool = False
    normalize: bool = False
    settled: bool = True

    def __post_init__(self) -> None:
        one_of("parameters", self.parameters, ("all", "encoder"))


@dataclass(frozen=True)
class Moving:
    """What preferences are moved for.

    Args:
        kind: ``"hypervolume"`` or ``"spacing"``.
        rate: in (0, 1].
    """

    kind: str
    rate: float = 0.3

    def __post_init__(self) -> None:
        one_of("adapt", self.kind, ("hypervolume", "spacing"))
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is in (0, 1], got {self.rate}")
