"""One step of the fast search: how far along its direction, and how closely the features are looked at for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import _unsafe_preserve_version_counter  # type: ignore[attr-defined]

from paretorch.core.arrays import Array
from paretorch.core.gradients.task_gradients import by_sample
from paretorch.linesearch.armijo.closures import losses_in_order, resolution
from paretorch.linesearch.contract import Found, Line, Outcome, Slopes, Step
from paretorch.linesearch.fast.direction import FastDirection
from paretorch.linesearch.fast.displacement_reuse import Calm
from paretorch.linesearch.fast.features import moved
from paretorch.linesearch.parameter_line import Moving, resolved

REFUSED = (Outcome.REJECTED, Outcome.NOISE)
OFF = 1.25  # factor between an accepted step and that of the secant, beyond which the secant is taken anew


class Uphill(Exception):  # noqa: N818 - no error: a search ends by it and another one begins
    """Two secants say that the direction, which one of them let pass, raises a task from the start."""


class Doubt(Exception):  # noqa: N818 - as above
    """A step that was to be taken without a look is not as easy as the last ones."""


class FastStep(FastDirection):
    """One step on one batch.

    Args:
        search: whose step it is.
        x: the encoder's input.
        losses_of: features -> losses by task.
    """

    def taken(self) -> Step:
        """Moves the parameters, or says why not."""
        search = self.search
        if self.given:
            self._look()
        if not self.values:
            return search.absent(self.given)
        losses = {task: value / self.divisors[task] for task, value in self.values.items()}
        answer = search.runner.run_on(losses, self.weighed, self.gramian, by_sample(self.features.leaves))
        slopes = self._falling(self._first_direction(answer))
        if search.displacement == "gradient" and not (search.follows and math.isfinite(search.last_bound)):
            slopes = self._checked(slopes)
        try:
            return self._searched(slopes)
        except BaseException:
            self.heads_moving.to(0)
            raise

    def _searched(self, slopes: Slopes) -> Step:
        """The step along the first direction that has one."""
        search = self.search
        found = None
        while found is None:
            try:
                found = self._found_anew(slopes)
            except Doubt:
                self.resting = False
                slopes = self._falling(self._told())
            except Uphill:
                slopes = self._fall_back(self._slopes(self._way(0.0)))
        if found.outcome in REFUSED and not found.least:
            slopes = self._tangent_slopes()
            self.exact, self.resting = True, False
            found = self._found_anew(slopes)
            if found.outcome is not Outcome.ACCEPTED and not self.by_parameters:
                slopes = self._fall_back_by_parameters(slopes)
                self._tangent_slopes()
                found = self._found_anew(slopes)
        if found.outcome is Outcome.ACCEPTED:
            return self._moved(found, self.line)
        self.heads_moving.to(0)
        return search.refused(found, self.line, self.given, self.fallback)

    def _found_anew(self, slopes: Slopes) -> Found:
        """The step along the present direction and displacement; every later one starts from where the heads stood."""
        self.heads_moving.to(0)
        self.heads_moving = Moving(self.search.own, self.heads_direction)
        self.earlier = None
        self.line = self.search.line(self.values, slopes, self._confirmed, resolution(self.given, self.leaves[0]))
        if not self.search.usable(slopes):
            return Found(Outcome.STATIONARY, 0.0, self.line.losses, 0)
        found = self.search.searched(self.line, self._true_line)
        if found.outcome is not Outcome.ACCEPTED:
            return found
        encoder = Moving(self.search.shared, self.shared_direction)
        return resolved(found, [encoder, self.heads_moving])

    def _true_line(self) -> Line | None:
        """Losses of the whole model along the direction, with the slopes that these have; None where some task rises."""
        if self.search.displacement != "gradient" or self.exact:
            return replace(self.line, at=self._true)
        slopes = self._slopes(self._tangent()).total
        return replace(self.line, at=self._true, slopes=slopes, asked=slopes) if (slopes > 0).all() else None

    def _checked(self, slopes: Slopes) -> Slopes:
        """Under "gradient", before a bound is found: the slopes, where the encoder's step lowers every task in truth.

        Elsewhere no bound is small enough: those of the common descent direction of the gradients on the parameters, along
        which every step is confirmed.
        """
        true = self._slopes(self._tangent())
        self.search.follows = self.search.usable(slopes) and self.search.usable(true)
        if self.search.follows:
            self.search.forget_bound()
            return slopes
        self.exact = True
        self._fall_back_by_parameters(true)
        return self._tangent_slopes()

    # --- how far ---------------------------------------------------------------------------------------------------------

    def _trial(self, step: float) -> Array:
        """(T,) losses of the heads, moved, on the features, moved."""
        self.heads_moving.to(step)
        return self._losses_on(moved(self.leaves, self._way(step), step))

    def _losses_on(self, leaves: Sequence[Tensor]) -> Array:
        """(T,) losses of the heads as they are, on these features."""

        def losses() -> Array:
            given = [leaf.detach().requires_grad_() for leaf in leaves] if torch.is_grad_enabled() else leaves
            return losses_in_order(self.losses_of(self.features.with_leaves(given)), self.values)

        found = self.decoding.evaluated(losses)
        self.search.differentiates = self.decoding.graph
        return found

    def _confirmed(self, step: float) -> Array:
        """The losses of a trial; one that its secant should not let pass is looked at again.

        Where the secant is over another step, by that over its own; where some samples told it and the step comes to less than
        the last ones let expect, by the whole batch. At most twice in a step; after a refusal, every one of them is.

        Raises:
            Uphill: two secants say that some task rises from the start.
            Doubt: nothing was looked at, and the step is not easy.
        """
        search, losses = self.search, self._trial(step)
        share = self._share(step, losses)
        if self.resting:
            if search.calm.broken(share):
                raise Doubt
            return losses
        known = [self.secant] if self.earlier is None else [self.secant, self.earlier[0]]
        off = all(max(step / over, over / step) > OFF for over in known)
        amazed = self.by_some and search.calm.broken(share)
        if not (off or amazed) or not (self.exact or self.renewals) or not search.acceptable(self.line, step, losses):
            return losses
        before = self.secant, self.displacement
        whole = self.exact or amazed
        self.secant, self.displacement = step, self._secant(step, None if whole else self._used_samples())
        if not self.exact:
            self.renewals -= 1
            shortest = before if self.earlier is None else min(before, self.earlier, key=lambda secant: secant[0])
            self.earlier = None if amazed else shortest
        losses = self._trial(step)
        if search.acceptable(self.line, step, losses):
            return losses
        if self.exact:
            self.secant, self.displacement = before  # the tangent again, for the shorter steps
        elif not self.fallback and not search.usable(self._slopes(self._way(0.0))):
            raise Uphill
        return losses

    def _share(self, step: float, losses: Array, slopes: Array | None = None) -> float:
        """Of its slope, what the worst task keeps over a step."""
        slopes = self.line.slopes if slopes is None else slopes
        return float(((self.line.losses - losses) / (step * slopes)).min())

    def _calmed(self, found: Found) -> Calm:
        """How easy the steps are, after one that was looked at."""
        if self.fallback:
            return self.search.calm.after(0.0)
        share, told = self._share(found.step, found.losses), 0.0
        if self.dear and share > 0:
            slopes = self._slopes(self._unlooked()).total
            told = self._share(found.step, found.losses, slopes) if slopes.min() > 0 else 0.0
        return self.search.calm.after(share, told)

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
        return self._losses_on(features)

    def _moved(self, found: Found, line: Line) -> Step:
        """The heads are moved, the encoder follows."""
        search = self.search
        moving = Moving(search.shared, self.shared_direction)
        actual: dict[str, float] = {}
        with moving.kept():
            moving.to(found.step)
            self.heads_moving.to(found.step)
            if search.verify and search.steps % search.verify == 0:
                actual = dict(zip(self.values, self._forward().tolist(), strict=True))
        search.calm = search.calm.rested() if self.resting else self._calmed(found)
        return search.accepted(
            found, line, self.given, self.fallback, actual, [moving, self.heads_moving], not self.resting
        )
