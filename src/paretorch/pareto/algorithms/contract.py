"""The contract of front algorithms: frozen values that compute weights from the evidence of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paretorch.core.option_checks import check_choice
from paretorch.former_names import former_members
from paretorch.pareto.front import Front
from paretorch.pareto.models.conditional_model import ConditionalModel
from paretorch.pareto.objective_range import ObjectiveRange
from paretorch.pareto.plan import FrontPlan
from paretorch.pareto.scalarize import Scalarization
from paretorch.pareto.transfer.matrices import Transfer


@former_members(everyone="previous_losses", extent="objective_range")
@dataclass(frozen=True)
class FrontEvidence:
    """The evidence of one step from which an algorithm computes the weights of some members.

    Tensors are on the host, in float64 or in the dtype of the losses. T counts the tasks that are present.

    Args:
        rows: indices of the n members.
        losses: (n, T) on this batch, without a graph.
        preferences: (n, T) on the simplex.
        gramian: (n, T, T) inner products of each member's task gradients; None unless the algorithm needs them.
        previous_losses: (N, all T) the losses of all members in the previous step; inf where they are unknown.
        all_preferences: (N, T) of all members.
        progress: of the training, in [0, 1].
        reference: (all T,) reference point of the training's hypervolume; None without one.
        objective_range: ideal and nadir point of the present tasks; None unless the algorithm normalizes.
        present: (all T,) mask of the tasks that are present; None: all are.
    """

    rows: tuple[int, ...]
    losses: Tensor
    preferences: Tensor
    gramian: Tensor | None
    previous_losses: Tensor
    all_preferences: Tensor
    progress: float
    reference: Tensor | None = None
    objective_range: ObjectiveRange | None = None
    present: Tensor | None = None

    def slopes(self, scalarization: Scalarization) -> Tensor:
        """(n, T) derivatives of a scalarization by the losses, normalized by the objective range if there is one."""
        if self.objective_range is None:
            return scalarization.weights(self.losses, self.preferences)
        return self.objective_range.weights(scalarization, self.losses, self.preferences)


@former_members(looks_at_gradients="needs_gramian", family="conditional_model", moving="preference_adaptation")
@dataclass(frozen=True)
class FrontAlgorithm:
    """An algorithm that trains a set of models. Subclasses are frozen dataclasses whose fields are their hyperparameters.

    Member i descends sum_t w_it L_t, with the weights that :meth:`weights` returns for it in this step. An algorithm has no
    parameters and no state; all evidence is an argument.
    """

    needs_gramian: ClassVar[bool] = False  # T backward passes per member and step instead of one
    conditional: ClassVar[bool] = False  # trains one conditional model instead of N models
    evolves: ClassVar[bool] = False  # uses no gradients

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) weights of the task gradients of n members."""
        raise TypeError(f"{type(self).__name__} is a FrontAlgorithm without weights()")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Raises ValueError for preferences, (N, T), that the algorithm does not support."""

    def conditional_model(self, models: list[nn.Module], example: Any) -> ConditionalModel:
        """The trained model, from T models of the workload and example inputs of the encoder; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains one model per preference: it has no conditional model")

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """(W, T) preferences of the next step; conditional algorithms only."""
        raise TypeError(f"{type(self).__name__} trains one model per preference: it draws none")

    def objective(self, losses: Tensor, preferences: Tensor) -> Tensor:
        """The scalar that a conditional model descends, of (W, T) losses at (W, T) preferences; unused if ``needs_gramian``."""
        raise TypeError(f"{type(self).__name__} trains one model per preference: it has no joint objective")

    def evolve(self, plan: FrontPlan, given: Tensor, models: list[nn.Module]) -> Front:
        """The whole search; algorithms without gradients only."""
        raise TypeError(f"{type(self).__name__} descends gradients: it does not evolve")

    @property
    def trains_members(self) -> bool:
        """Whether one model is trained per preference, all in an ensemble, instead of a conditional model or a population."""
        return not (self.conditional or self.evolves)

    @property
    def normalizes(self) -> bool:
        """Whether losses are normalized by their range, from the ideal to the nadir point."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether the training requires a reference point of the hypervolume."""
        adaptation = self.preference_adaptation()
        return adaptation is not None and adaptation.kind == "hypervolume"

    @property
    def starts(self) -> int:
        """The number of initial models; algorithms without gradients only."""
        raise TypeError(f"{type(self).__name__} descends gradients: its models are its members")

    def sharing(self) -> Sharing | None:
        """How parameters are transferred between members; None: not at all."""
        return None

    def preference_adaptation(self) -> PreferenceAdaptation | None:
        """How preferences change during training; None: they are constant."""
        return None


@dataclass(frozen=True)
class Sharing:
    """How parameters are transferred between members.

    Args:
        transfer: computes the transfer matrix.
        scalarization: the objective of each member, whose decrease a gate requires.
        parameters: ``"all"`` or ``"encoder"``.
        fade: whether transfer decreases linearly to zero at the end of training.
        normalize: whether the scalarization takes normalized losses.
        settled: whether preferences are constant. If they change, the better model for a preference changes faster than a
            model converges, so no model adopts another's parameters.
    """

    transfer: Transfer
    scalarization: Scalarization
    parameters: str = "all"
    fade: bool = False
    normalize: bool = False
    settled: bool = True

    def __post_init__(self) -> None:
        check_choice("parameters", self.parameters, ("all", "encoder"))


@dataclass(frozen=True)
class PreferenceAdaptation:
    """How preferences change during training.

    Args:
        kind: what they maximize: ``"hypervolume"``, or ``"spacing"`` for evenly spaced losses.
        rate: in (0, 1].
    """

    kind: str
    rate: float = 0.3

    def __post_init__(self) -> None:
        check_choice("adapt", self.kind, ("hypervolume", "spacing"))
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is in (0, 1], got {self.rate}")
