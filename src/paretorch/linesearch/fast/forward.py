"""The forward of a step on one batch, and how far its features go when the encoder goes along a direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.task_gradients import Gradients
from paretorch.linesearch.armijo.closures import InputDerivative, by_the_input, requiring_grad, values_of
from paretorch.linesearch.backwards import Backwards
from paretorch.linesearch.contract import Slopes
from paretorch.linesearch.directions.metrics import Row
from paretorch.linesearch.fast.extrapolation import samples_of
from paretorch.linesearch.fast.features import Features
from paretorch.linesearch.parameter_line import Moving, filled, inners
from paretorch.linesearch.replay.batch_norm import Matching
from paretorch.linesearch.replay.forward import Repeat, lacks_graph
from paretorch.linesearch.search import LossesOf

if TYPE_CHECKING:
    from paretorch.linesearch.fast.search import FastBacktracking

BRIEF = 1e-3  # part of the bound below which steps are so short that rounding may hide what the features do
RENEWALS = 2  # times in a step that the secant is taken anew
COMPARED = 50  # steps between two looks at whether some samples tell the displacement of the batch
EARLY = (5, 10, 20)  # steps of such looks at the beginning
TOLD = 0.7  # part of a slope by which the one that they tell may be off: half is harmless where it is the same for all tasks
UNLIKE = 2.0  # by how many times more they may be off for one task than for another


class FastForward:
    """One batch through encoder and heads, with what a step along a direction is told by. Not made directly: see FastStep.

    Args:
        search: whose step it is.
        x: the encoder's input.
        losses_of: features -> losses by task.
    """

    gradients: Gradients  # of the tasks on the features
    along: list[Tensor]  # the balanced gradient on the features
    displacement: list[Tensor]
    heads_direction: list[Tensor | None]

    def __init__(self, search: FastBacktracking, x: Any, losses_of: LossesOf) -> None:
        self.search, self.x, self.losses_of = search, x, losses_of
        self.fallback = ""
        self.secant = math.nan  # the step over which the displacement was taken, where it is a secant
        self.earlier: tuple[float, list[Tensor]] | None = None  # the shortest secant before this one
        looks = search.displacement == "difference" or (
            search.displacement == "calibrated" and not search.displace.scalable
        )
        self.renewals = RENEWALS if looks else 0  # that are left
        self.by_some = False  # whether the displacement is told by some samples
        self.heads_moving = Moving((), ())
        self.tangent: tuple[list[Tensor], list[Tensor]] | None = None  # the last one, with its direction
        self.by_parameters = False  # whether the common descent direction is that of the parameters' gradients
        self.exact = False  # every step is confirmed, by a secant on the whole batch: where all else was refused
        self.direction: list[Tensor] | None = None  # of the encoder's parameters
        device = search.shared[0].device
        some = search.samples is not None and search.displacement != "gradient" and search.displace.telling
        matching = Matching(search.displace.norms if some else ())
        self.encoding = Repeat([search.encoder], device, matching)
        self.decoding = Repeat([search.heads], device, graph=search.differentiates)
        with self.encoding.first(), torch.enable_grad():
            self.features = Features(search.encoder(x))
        self.leaves = [leaf.detach().requires_grad_() for leaf in self.features.leaves]
        with self.decoding.first(), torch.enable_grad():
            self.given = search.given(self._first_losses())
        self.values = values_of(self.given)
        self.encoder_backwards = Backwards(self.features.leaves, self._features_anew)
        self.heads_rows: dict[str, Row] = {}
        # a look at where the features go is a forward of the whole batch, and may be left out while steps are easy
        whole = search.samples is not None and not search.displace.telling
        self.dear = whole and search.displacement == "difference" and search.direction.plain
        self.resting = self.dear and search.calm.rests and not search.reviews_bound

    def _losses(self) -> Mapping[str, Tensor | None]:
        """With their graphs, of copies of the features, so that heads may work in place on them."""
        return self.losses_of(self.features.with_leaves([leaf.clone() for leaf in self.leaves]))

    def _first_losses(self) -> Mapping[str, Tensor | None]:
        inputs = requiring_grad(self.x)
        try:
            with InputDerivative(inputs) if inputs else nullcontext():
                return self._losses()
        except RuntimeError as error:
            if not lacks_graph(error):
                raise
            raise by_the_input() from error

    def _losses_anew(self) -> list[Tensor]:
        with self.decoding.anew():
            return list(self.search.given(self._losses()).values())

    def _features_anew(self) -> list[Tensor]:
        with self.encoding.anew():
            return self.features.same(self.search.encoder(self.x))

    @property
    def shared_direction(self) -> list[Tensor]:
        """Of the encoder's parameters; with "gradient" it is asked for only when a step was accepted."""
        if self.direction is None:
            self.direction = self._encoder_gradient(self.along)
        return self.direction

    def _encoder_gradient(self, cotangent: Sequence[Tensor]) -> list[Tensor]:
        """J_z^T times a cotangent of the features."""
        row = self.encoder_backwards.gradients(self.search.shared, list(cotangent))
        return filled(row, self.search.shared)

    def _places(self, tasks: Iterable[str]) -> dict[str, int]:
        return {task: self.search.tasks.index(task) for task in tasks}

    def _slopes(self, displacement: Sequence[Tensor] | None = None) -> Slopes:
        """Of the present tasks, along the present direction; where another displacement is given, as if it were the features'."""
        own = np.array(inners(list(self.heads_rows.values()), self.heads_direction))
        return Slopes(own, self._slopes_along(self.displacement if displacement is None else displacement))

    def _slopes_along(self, displacement: Sequence[Tensor]) -> Array:
        """(T,) how fast each present task falls as the features move."""
        known = self.gradients.known
        return np.array([
            inners([self.gradients.rows[known.index(place)]], displacement)[0] if place in known else 0.0
            for place in self._places(self.values).values()
        ])  # fmt: skip

    def _way(self, step: float) -> list[Tensor]:
        r"""The displacement at a step: of two secants, as a parabola through both their ends and the features has it.

        .. math:: q(\eta) = q_2 + (q_1 - q_2) \frac{\eta - h_2}{h_1 - h_2}
        """
        if self.earlier is None:
            return self.displacement
        over, other = self.earlier
        return list(torch._foreach_lerp(self.displacement, other, (step - self.secant) / (over - self.secant)))

    # --- how the features go ---------------------------------------------------------------------------------------------

    def _displaced(self) -> list[Tensor]:
        search, displace = self.search, self.search.displace
        if search.displacement == "linearised":
            return self._by_some(self._product)
        scaled = search.displacement == "calibrated" and search.steps % search.every and math.isfinite(displace.ratio)
        if scaled and displace.scalable and not (search.reviews_bound or self.by_parameters):
            return displace.scaled(self.along, self.shared_direction)
        if self.resting:
            return self._unlooked()
        self.secant = search.expected_step()
        if search.last is None or not self.secant >= BRIEF * search.last.bound:
            short = displace.small_step(self.shared_direction)
            self.secant = short if math.isnan(self.secant) else max(self.secant, short)
        if search.displacement == "calibrated":  # steps that follow rely on it, and it is seldom taken
            found = self._secant(self.secant, None)
        else:
            found = self._by_some(lambda samples: self._secant(self.secant, samples))
        displace.calibrate(found, self.shared_direction)
        if search.displacement == "calibrated" and not self.by_parameters:
            told = self._slopes(displace.scaled(self.along, self.shared_direction)).total
            agrees = bool(((told > 0) & (self._slopes(found).total > search.rules.beta * told)).all())
            # where it does not, the secant is taken in every step until the next that is due
            displace.scalable = agrees and (displace.scalable or search.steps % search.every == 0)
        return found

    def _unlooked(self) -> list[Tensor]:
        """What is known of the displacement without a look."""
        return self.search.displace.projected(self.along, self.shared_direction)

    def _by_some(self, displaced: Callable[[int | None], list[Tensor]]) -> list[Tensor]:
        """The displacement told by some samples of the batch, or the whole batch's; now and then by both, to compare.

        Some samples tell that of a small network. In a deep one, each of the others moves in a way of its own: once they did
        not, the whole batch is used.
        """
        search, samples = self.search, self._samples()
        due = search.steps % COMPARED == 0 or search.steps in EARLY or search.reviews_bound
        if samples is None or not due or not search.displace.telling or (search.samples or 1) >= 1:
            return displaced(self._used_samples())
        told, whole = self._slopes(displaced(samples)).total, displaced(None)
        true = self._slopes(whole).total
        with np.errstate(divide="ignore", invalid="ignore"):
            part = told / true
        search.displace.telling = bool((np.abs(part - 1) <= TOLD).all() and part.max() <= UNLIKE * part.min())
        return whole

    def _product(self, samples: int | None) -> list[Tensor]:
        """J_z u."""
        displace = self.search.displace
        return displace.linearised(self.x, self.features, self.shared_direction, self.encoding, samples)

    def _secant(self, step: float, samples: int | None) -> list[Tensor]:
        """The displacement by a difference over ``step``."""
        self.by_some = samples is not None
        return self.search.displace.difference(
            self.x, self.features, self.shared_direction, self.encoding, step, samples
        )

    def _tangent_slopes(self) -> Slopes:
        """Sets the displacement to the secant over a short step, on the whole batch; returns its slopes."""
        self.displacement = self._tangent()
        self.secant, self.earlier = self.search.displace.small_step(self.shared_direction), None
        return self._slopes()

    def _tangent(self) -> list[Tensor]:
        """The secant over a short step along the present direction, on the whole batch."""
        if self.tangent is None or self.tangent[0] is not self.shared_direction:
            step = self.search.displace.small_step(self.shared_direction)
            self.tangent = self.shared_direction, self._secant(step, None)
        self.by_some = False
        return self.tangent[1]

    def _samples(self) -> int | None:
        """How many samples may tell the displacement of the batch; None: all."""
        displace, batch = self.search.displace, len(self.leaves[0]) if self.leaves[0].ndim else 1
        depend = self.encoding.drew or displace.apart is False
        samples = samples_of(batch, self.search.samples, depend)
        if samples is None or not displace.takes(samples, self.x, self.features, self.encoding):
            return None
        return samples

    def _used_samples(self) -> int | None:
        return self._samples() if self.search.displace.telling else None
