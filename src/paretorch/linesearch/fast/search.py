"""Fast backtracking: trials are forwards of the heads alone, on features moved along their displacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from paretorch.core.contract import Method
from paretorch.core.method.runner import Scale
from paretorch.core.restoring import RestoredOnError
from paretorch.linesearch.armijo.rules import Memory, Rules, Shrink, Start, Trial
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import Step
from paretorch.linesearch.directions.metrics import Metric
from paretorch.linesearch.fast.batch import DisplacementName, FastOptions, forward_batch
from paretorch.linesearch.fast.displacement_reuse import DisplacementReuse
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.fast.step import fast_step
from paretorch.linesearch.loss_values import LossesOf
from paretorch.linesearch.parts import Accept, BoundRule, Heads, search_parts
from paretorch.linesearch.replay.autocast import CallerAutocast
from paretorch.linesearch.search import LineSearch


class FastBacktracking(LineSearch):
    r"""A step size without tuning at nearly the cost of a fixed one: one encoder forward and backward, any number of trials.

    .. math:: L_t(z - \eta q,\; \theta_t - \eta p_t) \le L_t - \eta \beta s_t \quad \text{for all } t, \qquad
              s_t = \Big\langle \frac{\partial L_t}{\partial z}, q \Big\rangle
                  + \Big\langle \frac{\partial L_t}{\partial \theta_t}, p_t \Big\rangle

    The method balances the tasks' gradients on the features into d_z. The encoder moves along u, by default
    :math:`J_z^T d_z`, and the features along their displacement q:

    * ``"gradient"``: q = d_z, as published: the displacement of free features. The encoder's parameters move them otherwise, so
      that in effect only the heads are controlled.
    * ``"linearised"``: :math:`q = J_z u`, with exact slopes: one forward-mode product.
    * ``"difference"``: the secant (z(theta) - z(theta - h u)) / h with h the last accepted step: one more forward. Where an
      acceptable step differs from h by more than a quarter, its own secant is measured, at most twice in a step. With two
      secants the features move along the parabola through both; where its slope at 0 increases a loss, the direction is
      replaced.
    * ``"calibrated"``: the secant every ``every`` steps; between them d_z at the norm of the last secant.

    Where a slope s_t is not above 0, u becomes the common descent direction of the tasks' gradients on the encoder's parameters
    (T encoder backwards), and where that does not decrease every loss either, the point is stationary and the parameters are
    unchanged. With ``"gradient"`` the minimum norm on the features is used in its place.

    Args:
        encoder: inputs -> features, a tensor or any nesting of tensors.
        heads: modules by task, or one module with all of them.
        method: the balancing method, such as ``MGDA()``.
        max_step: the largest step; None: found, see :class:`~paretorch.UpperBound`.
        displacement: one of the four.
        samples: compute the displacement on this many samples of the batch, or this part of it but at least 16 (32 with
            dropout), and extrapolate it to the others; None: on all. The slopes of a part are compared with the batch's in the
            first steps and every 50; where they disagree, as in deep networks, the whole batch is used from then on, in one of
            three steps after a run of five in which every task kept .8 of its slope, and .3 of the slope along the projection
            :math:`q = d_z \lVert u \rVert^2 / \lVert d_z \rVert^2`. The steps between use the projection.
        every: steps between two secants of ``"calibrated"``.
        beta, shrink, floor, trial, memory, start, lowest: the acceptance condition and the trials, see
            :class:`~paretorch.linesearch.Rules`. Here beta also covers the error of the displacement.
        bound: when the largest step decreases: an :class:`UpperBound`, or the name of its rule.
        direction: an optimizer or a metric that turns the balanced gradient into the direction.
        accept: part of the slopes of which a share is required as decrease: ``"both"``, ``"heads"``, ``"features"``.
        scale: of the method's weights: ``"calibrated"``, ``"paper"``.
        imbalance: ratio of the tasks' curvatures above which losses are divided for the direction, at least 1; inf: never. See
            :class:`~paretorch.linesearch.LossScaling`.
        verify: steps between two forwards of the whole model after a step, which give the true losses; 0: none.
        seed: of the method's random draws.

    Raises:
        ValueError: an option is out of range, or a direction other than the gradient with ``displacement="gradient"``.

    Example:
        >>> import paretorch as pt
        >>> _ = torch.manual_seed(0)
        >>> encoder, left, right = (nn.Linear(n, m) for n, m in ((4, 3), (3, 1), (3, 1)))
        >>> search = pt.FastBacktracking(encoder, {"left": left, "right": right}, pt.MGDA(), max_step=1.0)
        >>> x = torch.ones(8, 4)
        >>> losses_of = lambda z: {"left": left(z).square().mean(), "right": (right(z) - 1).square().mean()}
        >>> step = search.step(x, losses_of)
        >>> step.accepted, all(step.predicted[task] < float(loss) for task, loss in step.losses.items())
        (True, True)

    References:
        Filatov & Merkulov, "Fast line search for multi-task learning", 2021, Algorithm 2. Their code draws new dropout masks
        in every trial and requires the heads' decrease alone; here masks and statistics are those of the first forward, and
        ``accept`` has all three rules. The other displacements and the check of the slopes are ours.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: Heads,
        method: Method[Any],
        max_step: float | None = None,
        *,
        displacement: DisplacementName = "difference",
        samples: float | None = 0.0625,
        every: int = 10,
        beta: float = 0.15,
        shrink: Shrink = "violation",
        floor: float = 1e-10,
        trial: Trial = "backtracking",
        memory: Memory = "monotone",
        start: Start = "reset",
        lowest: float = 0.0,
        bound: UpperBound | BoundRule = "fixed",
        direction: torch.optim.Optimizer | Metric | None = None,
        accept: Accept = "both",
        scale: Scale = "calibrated",
        imbalance: float = 10.0,
        verify: int = 0,
        seed: int = 0,
    ) -> None:
        rules = Rules(beta, shrink, floor, trial, memory, start, lowest)
        parts = search_parts(encoder, heads, rules, max_step, bound, direction, accept, imbalance, verify)
        self.options = FastOptions.of(encoder, displacement, samples, every)
        if displacement == "gradient" and not parts.direction.is_gradient:
            raise ValueError(
                "displacement='gradient' moves the features along their own gradient; with a direction of an optimizer or a "
                "metric the encoder moves them otherwise: use 'difference' or 'linearised'"
            )
        if isinstance(direction, Metric) and direction.needs_tasks:
            raise ValueError(
                f"{type(direction).__name__} compares every task's gradients before and after a step on the same data, which the "
                "fast search does not have: use Backtracking"
            )
        super().__init__(parts, method, scale, seed)
        self.fast = FastState(self.state, encoder_descends=max_step is not None)

    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch; see ``LineSearch.step``."""
        autocast = CallerAutocast(self.parts.shared[0].device)
        with RestoredOnError([self.parts.encoder, self.parts.heads]), autocast.left(), self.undo_on_error() as undo:
            undo.callback(self.__dict__.update, fast=self.fast, options=self.options)
            self.follow_requires_grad()
            batch = forward_batch(
                self.parts,
                self.options,
                x,
                losses_of,
                self.declared,
                autocast=autocast,
                subsample_reliable=self.fast.encoder.subsample_reliable,
                differentiates=self.state.differentiates,
                undo=undo,
            )
            self.last, self.fast = fast_step(batch, self.runner, self.fast._replace(search=self.state))
            self.state = self.fast.search
            undo.pop_all()
            return self.last

    def follow_requires_grad(self) -> bool:
        """Takes the parameters that require grad now; what was found of the losses' graphs is checked again."""
        changed = super().follow_requires_grad()
        if changed:
            self.options = self.options.following(self.parts.encoder)
            self.fast = self.fast._replace(checked_tasks=frozenset())
        return changed

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs in addition to the model's parameters: plain values and tensors."""
        fast, encoder = self.fast, self.fast.encoder
        return {
            **super().state_dict(),
            "ratio": fast.ratio,
            "telling": encoder.subsample_reliable,
            "apart": encoder.samples_independent,
            "divisible": encoder.divisible,
            "scalable": fast.scaling_agrees,
            "follows": fast.encoder_descends,
            "calm": tuple(fast.reuse),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the state.

        Raises:
            ValueError: the state is of other tasks.
        """
        super().load_state_dict(state_dict)
        self.fast = self.fast._replace(
            encoder=self.fast.encoder._replace(
                subsample_reliable=bool(state_dict["telling"]),
                samples_independent=state_dict["apart"],
                divisible=state_dict.get("divisible"),
            ),
            reuse=DisplacementReuse(*state_dict["calm"]),
            ratio=float(state_dict["ratio"]),
            # states of earlier versions have neither these nor "divisible"
            scaling_agrees=state_dict.get("scalable", True),
            encoder_descends=state_dict.get("follows", self.fast.encoder_descends),
        )
