"""NSGA-II, the evolutionary reference on synthetic problems, by pymoo (Deb et al. 2002)."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from paretorch.extras import extra
from paretorch.pareto.algorithms.contract import FrontAlgorithm
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.fitting.plan import Plan
from paretorch.pareto.front import Front, FrontSnapshot
from paretorch.pareto.models.members import score


@dataclass(frozen=True)
class NSGA2(FrontAlgorithm):
    """A population of parameter vectors that is crossed, mutated and selected; no gradients. An epoch is a generation.

    The members of the front are those of the last population that serve the preferences best. Workloads say in which box their
    points live, as those of :class:`~paretorch.workloads.synthetic.Synthetic` on points do; networks have none.

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
        """There are as many in the population as preferences."""
        if len(preferences) > self.population:
            raise ValueError(f"{len(preferences)} preferences need a population as large, got {self.population}")

    @property
    def starts(self) -> int:
        """As many as the population."""
        return self.population

    def evolve(self, plan: Plan, given: Tensor, models: list[nn.Module]) -> Front:
        """The front after ``plan.epochs`` generations.

        Args:
            plan: the arguments of :func:`~paretorch.fit_front`; optimizer and schedule mean nothing here.
            given: (N, T).
            models: whose parameters the population begins with, one of each.

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
            from pymoo.core.evaluator import Evaluator
            from pymoo.core.population import Population
            from pymoo.core.problem import Problem
            from pymoo.problems.static import StaticProblem
        starts = np.stack([parameters_to_vector(model.parameters()).detach().double().numpy() for model in models])
        problem = Problem(n_var=starts.shape[1], n_obj=len(plan.workload.tasks), xl=box[0], xu=box[1])
        search: Any = nsga2.NSGA2(pop_size=self.population, sampling=starts.clip(*box))
        search.setup(problem, termination=("n_gen", plan.epochs + 1), seed=plan.seed, verbose=False)
        template = copy.deepcopy(models[0])
        streams = plan.workload.data().train
        history: list[FrontSnapshot] = []
        seconds, evaluations, rows = 0.0, 0, []
        for generation in range(plan.epochs):
            began = time.perf_counter()
            asked: Population = search.ask()
            values = torch.stack([self._losses(plan, template, point, streams) for point in asked.get("X")])
            Evaluator().eval(StaticProblem(problem, F=values.numpy()), asked)
            search.tell(infills=asked)
            evaluations += len(asked)
            seconds += time.perf_counter() - began
            if plan.looks(generation + 1):
                losses = torch.from_numpy(search.pop.get("F").copy())
                rows = serving(losses, given)
                history.append(plan.moment(generation + 1, evaluations, seconds, losses[rows]))
                if plan.progress is not None:
                    plan.progress(history[-1])
        states, found = [], []
        for row in rows:
            found.append(self._losses(plan, template, search.pop.get("X")[row], plan.workload.data().validation))
            states.append({name: value.clone() for name, value in template.state_dict().items()})
        facts = {
            "algorithm": repr(self),
            "loss evaluations": evaluations,
            "gradient evaluations": 0,
            "seconds": seconds,
        }
        metrics: tuple[dict[str, dict[str, float]], ...] = tuple({} for _ in rows)
        return Front(
            plan.workload.tasks, given, torch.stack(found), metrics, tuple(states), template, (), tuple(history),
            plan.reference, facts,
        )  # fmt: skip

    @staticmethod
    def _losses(plan: Plan, model: nn.Module, point: Any, streams: Any) -> Tensor:
        vector_to_parameters(torch.from_numpy(np.asarray(point, dtype=np.float32)), model.parameters())
        return score(plan.workload, model, streams, plan.batch_size)[0]


def serving(losses: Tensor, preferences: Tensor) -> list[int]:
    """For each preference, the row that serves it best by the augmented Tchebycheff distance; no row twice.

    Args:
        losses: (n, T), at least as many as preferences.
        preferences: (N, T).

    Example:
        >>> serving(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]]), torch.tensor([[0.9, 0.1], [0.5, 0.5]]))
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
