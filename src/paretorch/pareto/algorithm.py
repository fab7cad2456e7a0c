"""What an algorithm for fronts is: a frozen value that says how each member's task gradients are weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paretorch.core.checks import one_of
from paretorch.pareto.ensemble import View
from paretorch.pareto.transfer import Transfer


@dataclass(frozen=True)
class FrontAlgorithm:
    """A way to train a set of models. Subclasses are frozen dataclasses whose fields are their hyperparameters.

    Member i descends sum_t w_it L_t, with the weights that :meth:`weights` gives for it in this step. An algorithm holds no
    parameters and no state: the losses, inner products and preferences that it looks at are handed to it.
    """

    looks_at_gradients: ClassVar[bool] = False  # wants inner products: T backwards per member and step
    conditional: ClassVar[bool] = False  # one network that takes the preference as an input, instead of N

    def weights(self, view: View) -> Tensor:
        """(n, T) weights of the task gradients of the members in view."""
        raise TypeError(f"{type(self).__name__} is a FrontAlgorithm without weights()")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Refuses preferences, (N, T), that the algorithm cannot use."""

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(T,) a preference to train on in the next step; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains a model for each preference: it draws none")

    def objective(self, losses: Tensor, preference: Tensor) -> Tensor:
        """What the network descends, of (T,) losses and (T,) preference; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains a model for each preference: it has no common objective")

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
        parameters: ``"all"`` or ``"encoder"``.
        fade: whether it fades linearly to nothing at the end of training.
    """

    transfer: Transfer
    parameters: str = "all"
    fade: bool = False

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
