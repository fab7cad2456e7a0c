"""A front: trained models along a trade-off, with their losses and metrics."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.former_names import former_members
from paretorch.pareto import dominance
from paretorch.pareto import hypervolume as volumes
from paretorch.pareto.files import front_folder
from paretorch.pareto.files.stored_front import FrontSnapshot, StoredFront
from paretorch.pareto.preferences import checked_preferences
from paretorch.pareto.stationarity import residual
from paretorch.workloads.base import Workload


@former_members(coverage="inverted_generational_distance", spread="evenness")
@dataclass(frozen=True)
class Front:
    """A set of models, each for another trade-off between the tasks.

    Args:
        tasks: (T,) names.
        preferences: (N, T) of each model, at the end of training.
        losses: (N, T) float64, on validation data.
        metrics: of each model, values by task and metric.
        states: the models' state dicts.
        template: a module of their architecture; its weights are ignored.
        diverged: indices of models that diverged; their losses are nan.
        history: snapshots during training.
        reference: (T,) reference point of the hypervolumes in the history; None without one.
        facts: plain values by name: ``"algorithm"``, ``"execution"``, ``"gradient evaluations"``, ``"seconds"``, and
            ``"took something over"``, the mean share of members to which parameters were transferred.
    """

    tasks: tuple[str, ...]
    preferences: Tensor
    losses: Tensor
    metrics: tuple[Mapping[str, Mapping[str, float]], ...]
    states: tuple[Mapping[str, Tensor], ...]
    template: nn.Module
    diverged: tuple[int, ...] = ()
    history: tuple[FrontSnapshot, ...] = ()
    reference: tuple[float, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def non_dominated(self) -> Tensor:
        """(N,) mask of the models that no other dominates; diverged models are excluded."""
        return dominance.non_dominated(self.losses)

    @property
    def ideal(self) -> Tensor:
        """(T,) the ideal point, the least loss of each task over the models."""
        least: Tensor = self._finite().min(dim=0).values
        return least

    @property
    def nadir(self) -> Tensor:
        """(T,) the nadir point, the largest loss of each task over the non-dominated models."""
        self._finite()
        worst: Tensor = self.losses[self.non_dominated].max(dim=0).values
        return worst

    def hypervolume(self, reference: Sequence[float] | None = None, *, partial: bool = False) -> float:
        """The hypervolume of the front relative to a reference point.

        Args:
            reference: (T,) in the units of the losses; None: that of the training.
            partial: accept models that are not below the reference; they contribute nothing.

        Raises:
            ValueError: there is no reference, it has another length, or a model is not below it.
        """
        point = self.reference if reference is None else tuple(float(value) for value in reference)
        if point is None:
            raise ValueError(f"hypervolume needs a reference: one value above the losses for each of {self.tasks}")
        volumes.check_reference(point, self.tasks)
        self._finite()
        corner = torch.tensor(point, dtype=torch.float64)
        finite = self.losses.isfinite().all(dim=1)
        beyond = (finite & ~(self.losses < corner).all(dim=1)).nonzero()[:, 0].tolist()
        if beyond and not partial:
            first = dict(zip(self.tasks, self.losses[beyond[0]].tolist(), strict=True))
            raise ValueError(
                f"the reference {point} is not above model{'s' * (len(beyond) > 1)} {', '.join(map(str, beyond))} "
                f"(losses of model {beyond[0]}: {first}): such models contribute nothing. Give a larger reference, or "
                "partial=True"
            )
        return volumes.hypervolume(self.losses[finite], corner)

    @property
    def evenness(self) -> float:
        """The evenness of the front, the mean gap between neighbours over the largest; at most 1.

        A gap is the distance of a non-dominated model to its nearest neighbour, with losses scaled so that the ideal point is 0
        and the nadir point 1; nan with fewer than two such models.
        """
        points = self._scaled()[self.non_dominated]
        if len(points) < 2:
            return float("nan")
        nearest = dominance.nearest_distances(points)
        return float(nearest.mean() / nearest.max()) if float(nearest.max()) > 0 else 0.0

    def alignment(self) -> Tensor:
        """(N,) cosines between the weighted losses w_t L_t of a model and the vector of ones; 1 if all are equal."""
        weighted = self.preferences * self.losses
        cosines: Tensor = weighted.sum(dim=1) / weighted.norm(dim=1).clamp_min(1e-300) / len(self.tasks) ** 0.5
        return cosines

    def residuals(self, workload: Workload, *, batch_size: int = 256) -> Tensor:
        """(N,) Pareto stationarity residuals on the training data in eval mode; see :func:`residual`.

        Args:
            workload: the one of the training.
            batch_size: samples per batch.
        """
        streams = workload.data().train
        found = [
            float("nan") if member in self.diverged else residual(workload, self.model(member), streams, batch_size)
            for member in range(len(self))
        ]
        return torch.tensor(found, dtype=torch.float64)

    def inverted_generational_distance(self, truth: Tensor) -> float:
        """The mean distance from points (n, T) of the true front to the nearest model (IGD)."""
        distances = torch.cdist(truth.double(), self._finite())
        return float(distances.min(dim=1).values.mean())

    def choose(self, preference: Sequence[float] | Mapping[str, float]) -> int:
        """The index of the best model for a preference, by the augmented Tchebycheff value of the scaled losses.

        Losses are scaled so that the ideal point is 0 and the nadir point 1.

        Args:
            preference: (T,) on the simplex, in the order of the tasks or by name.

        Raises:
            ValueError: it is not on the simplex, or all models diverged.
        """
        weights = checked_preferences([self._in_order(preference, "a weight")], self.tasks)[0]
        weighted = weights * self._scaled()
        value = weighted.max(dim=1).values + 1e-3 * weighted.sum(dim=1)
        return int(torch.where(self.non_dominated, value, torch.inf).argmin())

    def closest(self, losses: Sequence[float] | Mapping[str, float]) -> int:
        """The index of the non-dominated model with the nearest losses, each scaled by its range over the front."""
        given = list(map(float, self._in_order(losses, "a loss")))
        if len(given) != len(self.tasks) or not all(map(math.isfinite, given)):
            raise ValueError(f"expected a finite loss for each of {self.tasks}, got {given}")
        difference = self._scaled(torch.tensor([given], dtype=torch.float64)) - self._scaled()
        return int(torch.where(self.non_dominated, difference.norm(dim=1), torch.inf).argmin())

    def _in_order(self, values: Sequence[float] | Mapping[str, float], what: str) -> list[float]:
        """The values in the order of the tasks."""
        if not isinstance(values, Mapping):
            return list(values)
        if set(values) != set(self.tasks):
            raise ValueError(f"expected {what} for each of {self.tasks}, got {tuple(values)}")
        return [values[task] for task in self.tasks]

    def pick(self, preference: Sequence[float] | Mapping[str, float]) -> nn.Module:
        """The best model for a preference, in eval mode; see :meth:`choose`."""
        return self.model(self.choose(preference))

    def nearest(self, losses: Sequence[float] | Mapping[str, float]) -> nn.Module:
        """The model with the nearest losses, in eval mode; see :meth:`closest`."""
        return self.model(self.closest(losses))

    def model(self, member: int) -> nn.Module:
        """A copy of model ``member``, in eval mode."""
        if not 0 <= member < len(self):
            raise ValueError(f"the front has models 0 to {len(self) - 1}, got {member}")
        made = copy.deepcopy(self.template)
        made.load_state_dict(dict(self.states[member]))
        return made.eval()

    def interpolate(self, first: int, second: int, share: float) -> nn.Module:
        """The model with the weights (1 - share) of ``first`` plus share of ``second``; evaluate it before use.

        At 0 and 1 the weights are those of one model, bit for bit. Values that are not floating-point, such as counters, are
        always those of ``first``.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is in [0, 1], got {share}")
        made, other = self.model(first), self.model(second).state_dict()
        mixed = {
            name: _between(value, other[name], share) if value.is_floating_point() else value
            for name, value in made.state_dict().items()
        }
        made.load_state_dict(mixed)
        return made

    def save(self, folder: str | Path) -> None:
        """Writes ``front.json`` and one safetensors file per model into a folder."""
        values = {
            "tasks": list(self.tasks),
            "preferences": self.preferences.tolist(),
            "losses": self.losses.tolist(),
            "metrics": list(self.metrics),
            "diverged": list(self.diverged),
            "reference": None if self.reference is None else list(self.reference),
            "history": [dataclasses.asdict(snapshot) for snapshot in self.history],
            "facts": dict(self.facts),
        }
        front_folder.write(Path(folder), values, self.states)

    @staticmethod
    def load(folder: str | Path, template: nn.Module) -> Front:
        """The front that :meth:`save` wrote, for a module of its architecture."""
        stored, states = front_folder.read(Path(folder), template)
        return front_of(stored, states, template)

    def _finite(self) -> Tensor:
        found = self.losses[self.losses.isfinite().all(dim=1)]
        if not len(found):
            raise ValueError("all models of the front have diverged: train again, with a smaller learning rate")
        return found

    def _scaled(self, losses: Tensor | None = None) -> Tensor:
        ideal = self.ideal
        span = self.nadir - ideal
        return ((self.losses if losses is None else losses) - ideal) / torch.where(span > 0, span, 1.0)


def _between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """(1 - share) of one plus share of the other, exact at 0 and 1."""
    if share in (0, 1):
        return other if share else one
    return one + share * (other - one)


def front_of(stored: StoredFront, states: Sequence[Mapping[str, Tensor]], template: nn.Module) -> Front:
    """The front of stored numbers.

    Args:
        stored: the content of ``front.json``.
        states: of each model; empty: the front is read without its models.
        template: a module of their architecture.
    """
    return Front(
        tasks=stored.tasks,
        preferences=torch.tensor(stored.preferences, dtype=torch.float64),
        losses=torch.tensor(stored.losses, dtype=torch.float64),
        metrics=stored.metrics,
        states=tuple(states),
        template=template,
        diverged=stored.diverged,
        history=stored.history,
        reference=stored.reference,
        facts=stored.facts,
    )
