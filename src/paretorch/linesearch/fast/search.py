"""Fast backtracking: trials run the heads only, along the way that the features go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from paretorch.core import checks
from paretorch.core.contract import Method
from paretorch.core.method.runner import Scale
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import Step
from paretorch.linesearch.directions.metrics import Metric
from paretorch.linesearch.fast.displacement import DISPLACEMENTS, Displacement
from paretorch.linesearch.fast.displacement_reuse import Calm
from paretorch.linesearch.fast.step import FastStep
from paretorch.linesearch.search import LineSearch, LossesOf


class FastBacktracking(LineSearch):
    r"""A step size without tuning at nearly the price of a fixed one: one encoder forward and backward, any number of trials.

    .. math:: L_t(z - \eta q,\; \theta_t - \eta p_t) \le L_t - \eta \beta s_t \quad \text{for all } t, \qquad
              s_t = \Big\langle \frac{\partial L_t}{\partial z}, q \Big\rangle
                  + \Big\langle \frac{\partial L_t}{\partial \theta_t}, p_t \Big\rangle

    The method balances the tasks' gradients on the features into d_z; the encoder goes along u, by default
    :math:`J_z^T d_z`, and q says where the features go meanwhile:

    * ``"gradient"``: q = d_z, as published: where free features would go. The encoder's parameters move them elsewhere, so in
      effect only the heads are controlled.
    * ``"linearised"``: :math:`q = J_z u`, exact slopes: one forward-mode product.
    * ``"difference"``: the secant (z(theta) - z(theta - h u)) / h with h the last accepted step: one more forward. Where a step
      further than a quarter from h would be accepted, it is looked at again by its own secant, at most twice in a step. Of two
      secants the features' way is the parabola through both; where its slope at 0 raises a task, the direction is given up.
    * ``"calibrated"``: the secant every ``every`` steps; in between d_z at the length that it had.

    Where some s_t is not above 0, u becomes the common descent direction of the tasks' gradients on the encoder's parameters (T
    encoder backwards), and where that lowers not every task either, nothing moves: stationary. With ``"gradient"`` the features'
    minimum norm stands in.

    Args:
        encoder: inputs -> features, a tensor or any nesting of tensors.
        heads: modules by task, or one module that holds them all.
        method: the balancing method, such as ``MGDA()``.
        max_step: the largest step; None: found, see :class:`~paretorch.UpperBound`.
        displacement: one of the four.
        samples: compute the displacement on this many samples of the batch, or this part of it but at least 16 (32 with
            dropout), and carry it over to the others; None: on all. Whether a part tells the slopes of the batch is looked at
            in the first steps and every 50; where it does not, as in deep networks, the whole batch is used from then on; in
            one of three steps after a run of five that kept .8 of every task's slope, and .3 of the one that is known without
            a look. A step between is judged by the heads and by that slope: the balanced loss's, of
            :math:`q = d_z \lVert u \rVert^2 / \lVert d_z \rVert^2`.
        every: steps between two secants of ``"calibrated"``.
        beta: share of the slope that is asked for as decrease, in (0, 1); it also leaves room for what the displacement misses.
        shrink: factor on a refused step, in (0, 1), or ``"violation"``: by how far it was missed; see ``linesearch.Rules``.
        floor: the search ends below this part of the bound.
        trial: ``"backtracking"``, ``"parabolic"``, ``"golden"``.
        memory: ``"monotone"``, ``"nonmonotone"``, ``"smoothed"``.
        start: ``"reset"``, ``"keep"``, ``"grow"``, ``"polyak"``; see ``linesearch.Rules``.
        lowest: what no loss falls below, for ``"polyak"``.
        bound: when the largest step is lowered: an :class:`UpperBound`, or the name of its rule.
        direction: an optimizer or a metric that turns the balanced gradient into the direction.
        accept: of which part of the slopes a share is asked: ``"both"``, ``"heads"``, ``"features"``.
        scale: of the method's weights: ``"calibrated"``, ``"paper"``.
        imbalance: how many times as curved as another a task may be before its loss is divided for the direction, at least 1;
            inf: never. See ``linesearch.Units``.
        verify: a true forward tells the losses after every so many steps; 0: never.
        seed: of the method's random draws.

    Raises:
        ValueError: an option out of range, or a direction other than the gradient with ``displacement="gradient"``.

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
        in every trial and asks for the heads' decrease alone; here masks and statistics are those of the first forward, and
        ``accept`` has all three rules. The other displacements and the check of the slopes are ours.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: nn.Module | Mapping[str, nn.Module],
        method: Method[Any],
        max_step: float | None = None,
        *,
        displacement: Literal["gradient", "linearised", "difference", "calibrated"] = "difference",
        samples: float | None = 0.0625,
        every: int = 10,
        beta: float = 0.15,
        shrink: float | Literal["violation"] = "violation",
        floor: float = 1e-10,
        trial: Literal["backtracking", "parabolic", "golden"] = "backtracking",
        memory: Literal["monotone", "nonmonotone", "smoothed"] = "monotone",
        start: Literal["reset", "keep", "grow", "polyak"] = "reset",
        lowest: float = 0.0,
        bound: UpperBound | Literal["fixed", "manual", "regression", "sasa"] = "fixed",
        direction: torch.optim.Optimizer | Metric | None = None,
        accept: Literal["both", "heads", "features"] = "both",
        scale: Scale = "calibrated",
        imbalance: float = 10.0,
        verify: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder, heads, method, max_step, beta=beta, shrink=shrink, floor=floor, trial=trial, memory=memory, start=start,
            lowest=lowest, bound=bound, direction=direction, accept=accept, scale=scale, imbalance=imbalance,
            verify=verify, seed=seed,
        )  # fmt: skip
        checks.one_of("displacement", displacement, DISPLACEMENTS)
        if samples is not None and not (samples >= 1 and samples == int(samples)) and not 0 < samples < 1:
            raise ValueError(f"samples is a number of samples, a part of the batch in (0, 1), or None, got {samples}")
        if every < 1:
            raise ValueError(f"every is at least 1 step, got {every}")
        if displacement == "gradient" and not self.direction.plain:
            raise ValueError(
                "displacement='gradient' is where the features would go along their own gradient; with a direction of an "
                "optimizer or a metric the encoder moves them elsewhere: use 'difference' or 'linearised'"
            )
        if isinstance(direction, Metric) and direction.needs_tasks:
            raise ValueError(
                f"{type(direction).__name__} compares every task's gradients before and after a step on the same data, which the "
                "fast search does not have: use Backtracking"
            )
        self.displacement, self.samples, self.every = displacement, samples, every
        self.displace = Displacement(encoder)
        self.calm = Calm()
        # whether the encoder's step, with displacement="gradient", was seen to lower every task; a given bound is taken as it is
        self.follows = max_step is not None
        self.trusted: set[str] = set()  # tasks whose losses were seen to come from the features that were given

    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch; see ``LineSearch.step``."""
        return FastStep(self, x, losses_of).taken()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed search needs beside the model's parameters: plain values and tensors."""
        displace = self.displace
        told = {"ratio": displace.ratio, "telling": displace.telling, "apart": displace.apart}
        told |= {"divisible": displace.divisible, "scalable": displace.scalable, "follows": self.follows}
        return {**super().state_dict(), **told, "calm": tuple(self.calm)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes the state back.

        Raises:
            ValueError: it is of other tasks.
        """
        super().load_state_dict(state_dict)
        self.displace.ratio, self.displace.telling = float(state_dict["ratio"]), bool(state_dict["telling"])
        self.displace.apart, self.calm = state_dict["apart"], Calm(*state_dict["calm"])
        # states stored by earlier versions have none of these
        self.displace.divisible = state_dict.get("divisible")
        self.displace.scalable, self.follows = state_dict.get("scalable", True), state_dict.get("follows", self.follows)
