"""Where a step of the fast search goes: the tasks' gradients on one batch, and a direction along which all of them fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from paretorch.core.contract import Need
from paretorch.core.gradients.step_evidence import StepResult as Answer
from paretorch.core.gradients.task_gradients import Gradients
from paretorch.core.method.runner import combined_gradient
from paretorch.linesearch.armijo.closures import check_finite, check_origin
from paretorch.linesearch.backwards import Backwards
from paretorch.linesearch.contract import Slopes
from paretorch.linesearch.directions.metrics import Row, combined, common_descent, divided
from paretorch.linesearch.fast.forward import FastForward
from paretorch.linesearch.parameter_line import filled, inners


class FastDirection(FastForward):
    """Gradients and directions of a step on one batch. Not made directly: see FastStep."""

    # --- what the batch says ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Every task's gradient on features and heads; tasks without any are absent."""
        search, count = self.search, len(self.leaves)
        check_origin(self.given, self.leaves, search.shared, search.trusted)
        rows: list[Row | None] = [None] * len(search.tasks)
        losses = Backwards(list(self.given.values()), self._losses_anew)
        for place, task in enumerate(self.given):
            row = losses.gradients([*self.leaves, *search.own], place=place, last=place + 1 == len(self.given))
            rows[search.tasks.index(task)] = row[:count]
            self.heads_rows[task] = row[count:]
        self._weigh(rows)
        squares = {task: inners([row], row)[0] for task, row in self.heads_rows.items()}
        on_features = {task: float(self.gramian[place, place]) for task, place in self._places(squares).items()}
        check_finite(self.values, {task: squares[task] + on_features[task] for task in squares})
        for task in squares:
            if squares[task] + on_features[task] == 0:
                del self.values[task], self.heads_rows[task]
        self.squares = {task: squares[task] for task in self.values}

    def _weigh(self, rows: list[Row | None]) -> None:
        """The gradients on the features as they are, and as the method sees them: of divided losses."""
        search = self.search
        self.gradients = self.weighed = Gradients(rows, self.leaves)
        self.divisors = (
            search.divisors(search.tasks) if search.runner.uses_gradients else dict.fromkeys(search.tasks, 1.0)
        )
        if max(self.divisors.values()) > 1:
            each = zip(rows, self.divisors.values(), strict=True)
            self.weighed = Gradients([None if row is None else divided(row, by) for row, by in each], self.leaves)
        self.gramian = self.weighed.gramian()[0]

    # --- where to go -----------------------------------------------------------------------------------------------------

    def _first_direction(self, answer: Answer) -> Slopes:
        """Sets the direction that method and optimizer want; returns its slopes."""
        search = self.search
        self.along = combined_gradient(answer, self.weighed)
        weights = search.runner.head_weights(answer)
        factors = [weights[place] / self.divisors[task] for task, place in self._places(self.values).items()]
        self.heads_direction = combined(factors, list(self.heads_rows.values()))
        if search.displacement == "gradient":
            return self._feature_slopes(answer)
        gradient = self._encoder_gradient(self.along)
        if search.direction.plain:
            self.direction = gradient
        else:
            rows = self._parameter_rows() if search.direction.needs_tasks else {}
            parameters = [*search.shared, *search.own]
            made = search.direction.make(parameters, [*gradient, *self.heads_direction], rows, self.values)
            self._take(made)
        return self._told()

    def _told(self) -> Slopes:
        """Sets the displacement along the direction; returns its slopes."""
        self.displacement = self._displaced()
        slopes = self._slopes()
        if self.search.displacement == "difference" and not self.search.usable(slopes):
            self.resting = False
            # the secant may rise where the tangent falls, or a few samples where the batch falls
            slopes = self._tangent_slopes()
        return slopes

    def _take(self, made: Sequence[Tensor | None]) -> None:
        """A direction of all parameters: the encoder's without gaps, the heads' as it is."""
        count = len(self.search.shared)
        self.direction = filled(made[:count], self.search.shared)
        self.heads_direction = list(made[count:])

    def _falling(self, slopes: Slopes) -> Slopes:
        """The slopes, or those of the common descent direction where some task would rise."""
        return slopes if self.search.usable(slopes) else self._fall_back(slopes)

    def _fall_back(self, slopes: Slopes) -> Slopes:
        """The common descent direction instead of the method's."""
        search, tasks = self.search, list(self.values)
        worst = int(slopes.total.argmin())
        fails = "would raise" if slopes.total[worst] <= 0 else "was not seen to lower"
        self.fallback = f"the direction {fails} task {tasks[worst]!r} (slope {slopes.total[worst]:.3g})"
        metric, heads, divisors = search.direction.metric, list(self.heads_rows.values()), search.divisors(tasks)
        own = combined([1 / divisors[task] for task in tasks], heads)
        if search.displacement == "gradient" and not self.by_parameters:
            known = [divided(self._feature_row(task), divisors[task])
                     for task, place in self._places(tasks).items() if place in self.gradients.known]  # fmt: skip
            self.along = self.displacement = filled(common_descent(metric, known)[0], self.leaves)
            self.heads_direction = own
            slopes = self._slopes()
            if not search.usable(slopes):  # tasks meet in a parameter of several heads
                known = [
                    divided([*self._feature_row(task), *row], divisors[task]) for task, row in self.heads_rows.items()
                ]
                together = common_descent(metric, known)[0]
                self.along = self.displacement = filled(together[: len(self.leaves)], self.leaves)
                self.heads_direction = together[len(self.leaves) :]
                slopes = self._slopes()
            return slopes
        count, nothing = len(search.shared), [None] * len(search.own)
        whole = {task: divided(row, divisors[task]) for task, row in self._parameter_rows().items()}
        shared = common_descent(metric, [[*row[:count], *nothing] for row in whole.values()])[0]
        away = metric.inverse([*([None] * count), *own])
        slopes = self._toward([*shared[:count], *away[count:]], whole)
        if not search.usable(slopes):  # heads meet, in the metric or in a parameter of several
            slopes = self._toward(common_descent(metric, list(whole.values()))[0], whole)
        self.by_parameters = True
        self.displacement = self._tangent() if search.displacement == "gradient" else self._displaced()
        by = np.array([divisors[task] for task in whole])
        return Slopes(slopes.heads * by, slopes.features * by)

    def _fall_back_by_parameters(self, slopes: Slopes) -> Slopes:
        """The common descent direction of the gradients on the parameters, also where free features are searched on."""
        self.by_parameters = True
        return self._fall_back(slopes)

    def _feature_row(self, task: str) -> Row:
        """The gradient of a task on the features."""
        known, place = self.gradients.known, self.search.tasks.index(task)
        return self.gradients.rows[known.index(place)] if place in known else [None] * len(self.leaves)

    def _toward(self, direction: Sequence[Tensor | None], rows: Mapping[str, Row]) -> Slopes:
        """Takes a direction of all parameters; the slopes of rows along it."""
        self._take(direction)
        assert self.direction is not None
        count, given = len(self.search.shared), list(rows.values())
        own = inners([row[count:] for row in given], self.heads_direction)
        return Slopes(np.array(own), np.array(inners([row[:count] for row in given], self.direction)))

    def _feature_slopes(self, answer: Answer) -> Slopes:
        """Along the features' own direction: read off the Gramian where the method answers with weights."""
        self.displacement = self.along
        if answer.weights is None or self.search.runner.method.needs == Need.LOSSES:
            return self._slopes()
        places = list(self._places(self.values).values())
        divisors = np.array([self.divisors[task] for task in self.values])
        own = np.array(list(self.squares.values())) / divisors
        if self._heads_shared():
            own = np.array(inners(list(self.heads_rows.values()), self.heads_direction))
        return Slopes(own, (self.gramian @ np.array(answer.weights))[places] * divisors)

    def _heads_shared(self) -> bool:
        rows = list(self.heads_rows.values())
        return any(sum(row[place] is not None for row in rows) > 1 for place in range(len(self.search.own)))

    def _parameter_rows(self) -> dict[str, list[Tensor | None]]:
        """By task, the gradient on the encoder's parameters and the heads': one encoder backward for each."""
        rows: dict[str, list[Tensor | None]] = {}
        for task, place in self._places(self.values).items():
            unit = [float(other == place) for other in range(len(self.search.tasks))]
            rows[task] = [*self._encoder_gradient(self.gradients.combined(unit)), *self.heads_rows[task]]
        return rows
