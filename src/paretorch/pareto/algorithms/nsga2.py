"""NSGA-II, the evolutionary reference on synthetic problems, by pymoo (Deb et al. 2002)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from paretorch.extras import extra
from paretorch.loop.epochs import train_epochs
from paretorch.loop.step_statistics import StepStatistics
from paretorch.pareto.algorithms.contract import FrontAlgorithm
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.evaluation_history import GRADIENTS, EvaluationHistory
from paretorch.pareto.front import Front
from paretorch.pareto.models.members import score
from paretorch.pareto.plan import FrontPlan
from paretorch.workloads.streams import Stream


@dataclass(frozen=True)
class NSGA2(FrontAlgorithm):
    """A population of parameter vectors with crossover, mutation and selection; no gradients. An epoch is a generation.

    The front consists of the members of the last population that fit the preferences best. The workload must have a ``box``, the
    bounds of its parameters, as :class:`~paretorch.workloads.synthetic.Synthetic` has on points; networks have none.

    Args:
        population: parameter vectors, at least the number of preferences.

    Example:
        >>> NSGA2(population=40)
        NSGA2(population=40)

    References:
        Deb, Pratap, Agarwal & Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on
        Evolutionary Computation 2002; operators and their defaults are pymoo's.
    """

    population: int = 100

    evolves = True

    def __post_init__(self) -> None:
        if self.population < 4:
            raise ValueError(f"population is at least 4, got {self.population}")

    def check(self, preferences: Tensor, tasks: tuple[str, ...]) -> None:
        """Checks that the population has at least as many members as there are preferences."""
        if len(preferences) > self.population:
            raise ValueError(
                f"{len(preferences)} preferences need a population of at least that size, got {self.population}"
            )

    @property
    def starts(self) -> int:
        """The size of the population."""
        return self.population

    def evolve(self, plan: FrontPlan, given: Tensor, models: list[nn.Module]) -> Front:
        """The front after ``plan.epochs`` generations.

        Args:
            plan: the arguments of :func:`~paretorch.fit_front`; optimizer and schedule are not used.
            given: (N, T) preferences.
            models: their parameters are the first population.

        Raises:
            ValueError: the workload has no box.
        """
        box = getattr(plan.workload, "box", None)
        if box is None:
            raise ValueError(
                "NSGA2 searches a box of parameters, and the workload has none: it is for synthetic problems on points, such as "
                "Synthetic('vlmop2'). Train networks with MT2O()"
            )
        with extra("fronts"):
            from pymoo.algorithms.moo import nsga2
            from pymoo.core.problem import Problem
        starts = np.stack([parameters_to_vector(model.parameters()).detach().double().numpy() for model in models])
        problem = Problem(n_var=starts.shape[1], n_obj=len(plan.workload.tasks), xl=box[0], xu=box[1])
        search: Any = nsga2.NSGA2(pop_size=self.population, sampling=starts.clip(*box))
        search.setup(problem, termination=("n_gen", plan.epochs + 1), seed=plan.seed, verbose=False)
        evolution = _Evolution(plan, given, search, problem, copy.deepcopy(models[0]))
        train_epochs(evolution, plan.epochs, 1)
        return evolution.front(repr(self))


class _Evolution:
    """The generations of a population, as what the loop over epochs trains: a batch is all training data, an epoch one step."""

    def __init__(self, plan: FrontPlan, preferences: Tensor, search: Any, problem: Any, template: nn.Module) -> None:
        self.plan, self.preferences, self.template = plan, preferences, template
        self.search, self.problem = search, problem
        self.streams = plan.workload.data().train
        self.history = EvaluationHistory(plan)
        self.members: list[int] = []  # of the population, one for each preference

    def start_epoch(self, epoch: int) -> Iterable[tuple[Stream, ...]]:
        del epoch
        self.history.start_epoch()
        return (self.streams,)

    def update(self, step: int, batch: tuple[Stream, ...]) -> None:
        """One generation: offspring are made, evaluated and selected."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        del step
        offspring: Any = self.search.ask()
        values = torch.stack([self._losses(point, batch) for point in offspring.get("X")])
        Evaluator().eval(StaticProblem(self.problem, F=values.numpy()), offspring)
        self.search.tell(infills=offspring)
        self.history.statistics.add(StepStatistics({GRADIENTS: len(offspring)}))

    def end_epoch(self, epoch: int) -> bool:
        evaluates = self.history.end_epoch(epoch)
        if evaluates:
            losses = torch.from_numpy(self.search.pop.get("F").copy())
            self.members = best_members(losses, self.preferences)
            self.history.add(losses[self.members], [])
        return evaluates

    def save(self, epoch: int) -> None:
        raise TypeError("an evolution has no checkpoints")

    def report(self, epoch: int) -> None:
        """Does nothing: evaluations are reported when they are made."""

    def front(self, algorithm: str) -> Front:
        """The members of the last population that fit the preferences best."""
        workload, states, losses = self.plan.workload, [], []
        for member in self.members:
            losses.append(self._losses(self.search.pop.get("X")[member], workload.data().validation))
            states.append({name: value.clone() for name, value in self.template.state_dict().items()})
        facts = {
            "algorithm": algorithm,
            "loss evaluations": self.history.statistics.counts[GRADIENTS],
            "gradient evaluations": 0,
            "seconds": self.history.seconds,
        }
        metrics: tuple[dict[str, dict[str, float]], ...] = tuple({} for _ in self.members)
        return Front(
            workload.tasks, self.preferences, torch.stack(losses), metrics, tuple(states), self.template, (),
            tuple(self.history.history), self.plan.reference, facts,
        )  # fmt: skip

    def _losses(self, point: Any, streams: tuple[Stream, ...]) -> Tensor:
        vector_to_parameters(torch.from_numpy(np.asarray(point, dtype=np.float32)), self.template.parameters())
        return score(self.plan.workload, self.template, streams, self.plan.batch_size)[0]


def best_members(losses: Tensor, preferences: Tensor) -> list[int]:
    """For each preference, the member with the least augmented Tchebycheff distance; no member twice.

    Args:
        losses: (n, T) of the population, n >= N.
        preferences: (N, T).

    Example:
        >>> best_members(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]]), torch.tensor([[0.9, 0.1], [0.5, 0.5]]))
        [0, 2]
    """
    front = losses[non_dominated(losses)]
    low, high = front.min(dim=0).values, front.max(dim=0).values
    scaled = (losses - low) / torch.where(high > low, high - low, 1.0)
    weighted = preferences[:, None, :] * scaled[None]
    values = weighted.max(dim=2).values + 1e-3 * weighted.sum(dim=2)
    chosen: list[int] = []
    for row in values:
        taken = torch.tensor(chosen, dtype=torch.long)
        chosen.append(int(row.index_fill(0, taken, torch.inf).argmin()))
    return chosen
