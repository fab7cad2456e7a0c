"""One step of the fast search, piece by piece: what the batch says, where to go, how far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.core.contract import Need
from paretorch.core.evidence import Gradients, by_sample
from paretorch.core.graph import task_gradients
from paretorch.core.nonnegative import Array
from paretorch.core.seen import Outcome as Answer
from paretorch.linesearch.closures import check_finite, check_origin, losses_in_order, values_of
from paretorch.linesearch.contract import Found, Line, Outcome, Slopes, Step
from paretorch.linesearch.extrapolation import samples_of
from paretorch.linesearch.features import Features, moved
from paretorch.linesearch.matching import Matching
from paretorch.linesearch.metrics import Row, combined, common_descent, divided
from paretorch.linesearch.moving import Moving, filled, inners
from paretorch.linesearch.repeat import Repeat
from paretorch.linesearch.search import LossesOf

if TYPE_CHECKING:
    from paretorch.linesearch.fast import FastBacktracking

REFUSED = (Outcome.REJECTED, Outcome.NOISE)
COMPARED = 50  # steps between two looks at whether some samples tell the displacement of the batch
TOLD = 0.6  # part of a slope by which the one that they tell may be off: half is harmless where it is the same for all tasks
OFF = 1.25  # factor between an accepted step and that of the secant, beyond which the secant is taken anew


class FastStep:
    """One step on one batch.

    Args:
        search: whose step it is.
        x: the encoder's input.
        losses_of: features -> losses by task.
    """

    def __init__(self, search: FastBacktracking, x: Any, losses_of: LossesOf) -> None:
        self.search, self.x, self.losses_of = search, x, losses_of
        self.fallback = ""
        self.secant = math.nan  # the step over which the displacement was taken, where it is a secant
        self.renewable = search.displacement == "difference"  # once in a step
        self.exact = False  # every step is confirmed, by a secant on the whole batch: where all else was refused
        self.direction: list[Tensor] | None = None  # of the encoder's parameters
        device = search.shared[0].device
        matching = Matching(search.displace.norms if search.samples is not None else ())
        self.encoding, self.decoding = Repeat([search.encoder], device, matching), Repeat([search.heads], device)
        with self.encoding.first(), torch.enable_grad():
            self.features = Features(search.encoder(x))
        self.leaves = [leaf.detach().requires_grad_() for leaf in self.features.leaves]
        with self.decoding.first(), torch.enable_grad():
            # a copy, so that heads may work in place on the features
            given = losses_of(self.features.with_leaves([leaf.clone() for leaf in self.leaves]))
            self.given = search.given(given)
        self.values = values_of(self.given)
        self.heads_rows: dict[str, Row] = {}

    def taken(self) -> Step:
        """Moves the parameters, or says why not."""
        search = self.search
        if self.given:
            self._look()
        if not self.values:
            return search.absent(self.given)
        losses = {task: value / self.divisors[task] for task, value in self.values.items()}
        answer = search.asking.answer(losses, self.weighed, self.gramian, by_sample(self.features.leaves))
        slopes = self._first_direction(answer)
        if not search.usable(slopes):
            slopes = self._fall_back(slopes)
        found = self._found(slopes)
        if search.displacement == "difference" and found.outcome in REFUSED:
            slopes = self._tangent_slopes()
            found = self._found_with_care(slopes)
            if found.outcome is not Outcome.ACCEPTED and not self.fallback:
                slopes = self._fall_back(slopes)
                self._tangent_slopes()
                found = self._found_with_care(slopes)
        if found.outcome is not Outcome.ACCEPTED:
            self.heads_moving.to(0)
            return search.refused(found, self.line, self.given, self.fallback)
        return self._moved(found, self.line)

    def _found(self, slopes: Slopes) -> Found:
        """The step along the present direction."""
        self.heads_moving = Moving(self.search.own, self.heads_direction)
        self.line = self.search.line(self.values, slopes, self._confirmed, self.leaves[0].dtype)
        if not self.search.usable(slopes):
            return Found(Outcome.STATIONARY, 0.0, self.line.losses, 0)
        return self.search.searched(self.line, self._true)

    def _found_with_care(self, slopes: Slopes) -> Found:
        """The same after a refusal: the displacement may have been wrong, a secant over another step or of some samples."""
        self.heads_moving.to(0)
        self.renewable = self.exact = True
        return self._found(slopes)

    # --- what the batch says ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Every task's gradient on features and heads; tasks without any are absent."""
        search, count = self.search, len(self.leaves)
        check_origin(self.given, self.leaves, search.shared, search.trusted)
        rows: list[Row | None] = [None] * len(search.tasks)
        for place, (task, loss) in enumerate(self.given.items()):
            keep = place + 1 < len(self.given)
            row = task_gradients([loss], [None], [*self.leaves, *search.own], retain_graph=keep)
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
            search.divisors(search.tasks) if search.asking.weighs_gradients else dict.fromkeys(search.tasks, 1.0)
        )
        if max(self.divisors.values()) > 1:
            each = zip(rows, self.divisors.values(), strict=True)
            self.weighed = Gradients([None if row is None else divided(row, by) for row, by in each], self.leaves)
        self.gramian = self.weighed.gramian()[0]

    def _places(self, tasks: Iterable[str]) -> dict[str, int]:
        return {task: self.search.tasks.index(task) for task in tasks}

    # --- where to go -----------------------------------------------------------------------------------------------------

    def _first_direction(self, answer: Answer) -> Slopes:
        """Sets the direction that method and optimizer want; returns its slopes."""
        search = self.search
        self.along = search.asking.combined(answer, self.weighed)
        weights = search.asking.head_weights(answer)
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
        self.displacement = self._displaced()
        slopes = self._slopes()
        if search.displacement == "difference" and not search.usable(slopes):
            # the secant may rise where the tangent falls, or a few samples where the batch falls
            slopes = self._tangent_slopes()
        return slopes

    def _take(self, made: Sequence[Tensor | None]) -> None:
        """A direction of all parameters: the encoder's without gaps, the heads' as it is."""
        count = len(self.search.shared)
        self.direction = filled(made[:count], self.search.shared)
        self.heads_direction = list(made[count:])

    def _fall_back(self, slopes: Slopes) -> Slopes:
        """The common descent direction instead of the method's."""
        search, tasks = self.search, list(self.values)
        worst = int(slopes.total.argmin())
        fails = "would raise" if slopes.total[worst] <= 0 else "was not seen to lower"
        self.fallback = f"the direction {fails} task {tasks[worst]!r} (slope {slopes.total[worst]:.3g})"
        metric, heads, divisors = search.direction.metric, list(self.heads_rows.values()), search.divisors(tasks)
        own = combined([1 / divisors[task] for task in tasks], heads)
        if search.displacement == "gradient":
            known = [divided(self.gradients.rows[self.gradients.known.index(place)], divisors[task])
                     for task, place in self._places(tasks).items() if place in self.gradients.known]  # fmt: skip
            self.along = self.displacement = filled(common_descent(metric, known)[0], self.leaves)
            self.heads_direction = own
            return self._slopes()
        nothing: list[Tensor | None] = [None] * len(search.own)
        whole = self._parameter_rows().items()
        rows = [[*divided(row[: len(search.shared)], divisors[task]), *nothing] for task, row in whole]
        shared, _, exact = common_descent(metric, rows)
        away = metric.inverse([*([None] * len(search.shared)), *own])
        self._take([*shared[: len(search.shared)], *away[len(search.shared) :]])
        self.displacement = self._displaced()
        return Slopes(np.array(inners(heads, self.heads_direction)), exact * np.array(list(divisors.values())))

    @property
    def shared_direction(self) -> list[Tensor]:
        """Of the encoder's parameters; with "gradient" it is asked for only when a step was accepted."""
        if self.direction is None:
            self.direction = self._encoder_gradient(self.along)
        return self.direction

    def _feature_slopes(self, answer: Answer) -> Slopes:
        """Along the features' own direction: read off the Gramian where the method answers with weights."""
        self.displacement = self.along
        if answer.weights is None or self.search.asking.method.needs == Need.LOSSES:
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

    def _slopes(self) -> Slopes:
        """Of the present tasks, along the present direction."""
        own = np.array(inners(list(self.heads_rows.values()), self.heads_direction))
        return Slopes(own, self._slopes_along(self.displacement))

    def _slopes_along(self, displacement: Sequence[Tensor]) -> Array:
        """(T,) how fast each present task falls as the features move."""
        known = self.gradients.known
        return np.array([
            inners([self.gradients.rows[known.index(place)]], displacement)[0] if place in known else 0.0
            for place in self._places(self.values).values()
        ])  # fmt: skip

    def _parameter_rows(self) -> dict[str, list[Tensor | None]]:
        """By task, the gradient on the encoder's parameters and the heads': one encoder backward for each."""
        rows: dict[str, list[Tensor | None]] = {}
        for task, place in self._places(self.values).items():
            unit = [float(other == place) for other in range(len(self.search.tasks))]
            rows[task] = [*self._encoder_gradient(self.gradients.combined(unit)), *self.heads_rows[task]]
        return rows

    def _encoder_gradient(self, cotangent: Sequence[Tensor]) -> list[Tensor]:
        """J_z^T times a cotangent of the features."""
        again = self.search.displacement != "gradient"
        row = task_gradients(self.features.leaves, list(cotangent), self.search.shared, retain_graph=again)
        return filled(row, self.search.shared)

    # --- how the features go ---------------------------------------------------------------------------------------------

    def _displaced(self) -> list[Tensor]:
        search, displace = self.search, self.search.displace
        if search.displacement == "linearised":
            return self._by_some(self._product)
        if search.displacement == "calibrated" and search.steps % search.every and math.isfinite(displace.ratio):
            return displace.scaled(self.along, self.shared_direction)
        self.secant = search.expected_step()
        found = self._by_some(lambda samples: self._secant(self.secant, samples))
        displace.calibrate(found, self.shared_direction)
        return found

    def _by_some(self, displaced: Callable[[int | None], list[Tensor]]) -> list[Tensor]:
        """The displacement told by some samples of the batch, or the whole batch's; now and then by both, to compare.

        Some samples tell that of a small network. In a deep one, each of the others moves in a way of its own: once they did
        not, the whole batch is used.
        """
        search, samples = self.search, self._samples()
        if samples is None or search.steps % COMPARED or not search.displace.telling or (search.samples or 1) >= 1:
            return displaced(self._used_samples())
        whole = displaced(None)
        true = self._slopes_along(whole)
        off = self._slopes_along(displaced(samples)) - true
        total = true + np.array(inners(list(self.heads_rows.values()), self.heads_direction))
        search.displace.telling = bool((np.abs(off) <= TOLD * np.abs(total)).all())
        return whole

    def _product(self, samples: int | None) -> list[Tensor]:
        """J_z u."""
        displace = self.search.displace
        return displace.linearised(self.x, self.features, self.shared_direction, self.encoding, samples)

    def _secant(self, step: float, samples: int | None) -> list[Tensor]:
        """The displacement by a difference over ``step``; nan: a short one."""
        displace = self.search.displace
        step = displace.small_step(self.shared_direction) if math.isnan(step) else step
        return displace.difference(self.x, self.features, self.shared_direction, self.encoding, step, samples)

    def _tangent_slopes(self) -> Slopes:
        """Sets the displacement to the secant over a short step, on the whole batch; returns its slopes."""
        self.secant = self.search.displace.small_step(self.shared_direction)
        self.displacement = self._secant(self.secant, None)
        return self._slopes()

    def _samples(self) -> int | None:
        """How many samples may tell the displacement of the batch; None: all."""
        batch = len(self.leaves[0]) if self.leaves[0].ndim else 1
        depend = self.encoding.drew or self.search.displace.apart is False
        samples = samples_of(batch, self.search.samples, depend)
        return None if samples is None or samples >= batch else samples

    def _used_samples(self) -> int | None:
        return self._samples() if self.search.displace.telling else None

    # --- how far ---------------------------------------------------------------------------------------------------------

    def _trial(self, step: float) -> Array:
        """(T,) losses of the heads, moved, on the features, moved."""
        self.heads_moving.to(step)
        with self.decoding.again():
            there = self.features.with_leaves(moved(self.leaves, self.displacement, step))
            return losses_in_order(self.losses_of(there), self.values)

    def _confirmed(self, step: float) -> Array:
        """The losses of a trial; the first that a secant over another step would let pass is looked at again by its own.

        After a refusal, every one of them is.
        """
        search, losses = self.search, self._trial(step)
        if not self.renewable or max(step / self.secant, self.secant / step) <= OFF:
            return losses
        if not search.acceptable(self.line, step, losses):
            return losses
        before = self.secant, self.displacement
        self.secant, self.displacement = step, self._secant(step, None if self.exact else self._used_samples())
        losses = self._trial(step)
        if not self.exact:
            self.renewable = False
        elif not search.acceptable(self.line, step, losses):
            self.secant, self.displacement = before  # the tangent again, for the shorter steps
        return losses

    def _true(self, step: float) -> Array:
        """(T,) losses of the whole model, moved; the encoder is put back."""
        moving = Moving(self.search.shared, self.shared_direction)
        # to the graph, of which a backward may still come, nothing happens
        with _unsafe_preserve_version_counter(tuple(moving.parameters)):
            moving.to(step)
            self.heads_moving.to(step)
            try:
                return self._forward()
            finally:
                moving.to(0)

    def _forward(self) -> Array:
        with self.encoding.again():
            features = self.features.same(self.search.encoder(self.x))
        with self.decoding.again():
            return losses_in_order(self.losses_of(self.features.with_leaves(features)), self.values)

    def _moved(self, found: Found, line: Line) -> Step:
        """The heads are moved, the encoder follows."""
        search = self.search
        moving = Moving(search.shared, self.shared_direction)
        moving.to(found.step)
        self.heads_moving.to(found.step)
        actual: dict[str, float] = {}
        if search.verify and search.steps % search.verify == 0:
            actual = dict(zip(self.values, self._forward().tolist(), strict=True))
        return search.accepted(found, line, self.given, self.fallback, actual, [moving, self.heads_moving])
