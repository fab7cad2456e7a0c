"""MTAdamV2: the optimizer of the optimizer study, in both meanings that its text allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adam import adam

from paretorch.core.gradients.ranks import ALL
from paretorch.optim.mtadam import mtadam
from paretorch.optim.multitask import Weights, shares
from paretorch.optim.per_task.adam import AdamPerTask, LengthOver, check_length_over, mean_length
from paretorch.optim.per_task.moments import Bucket, Memory

MEAN = "the mean of the losses"  # the one row of mode "equal"


class MTAdamV2(AdamPerTask):
    r"""MTAdam without an anchor: on every tensor each task's gradient is brought to length one.

    .. math:: g_i \leftarrow \frac{r_i}{n_i} g_i, \qquad
              \theta \leftarrow \theta - \frac{\eta}{T_\theta} \sum_i \hat m_i \Big/
              \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    with n_i the moving mean of the gradient's length, and T_theta the number of present tasks that reach the tensor (1 for a
    head): equal gradients take Adam's step. ``optimizer.step(losses)`` takes the place of ``backward()`` and ``step()``.

    Args:
        params: parameters or parameter groups.
        lr: eta.
        betas: of the first and the second moment.
        eps: added to the denominator.
        mode: ``"balanced"`` as above; ``"equal"``: torch's Adam on the mean of the losses, to the last bit, which is what the
            study that names MTAdamV2 ran.
        weights: by task name or in the order of the tasks, above 0. Balanced: r, 1 by default. Equal: the factors of the
            losses; by default one over the number of tasks in this step, (.5, .5) for two.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        length_beta: of the mean length.
        length_over: ``"tensor"``, or ``"group"``: one length for all tensors of a parameter group.
        foreach: one kernel for many tensors; by default on CUDA. Balanced, the numbers are the same to
            rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`.
        max_norm: shorten each task's gradient (equal: the mean's), over all parameters, to this length.
        group: ranks whose losses are averaged.

    Example:
        >>> import torch
        >>> point = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = MTAdamV2([point], lr=0.1)
        >>> optimizer.step({"left": point.sum(), "right": 1e6 * point.sum()})
        >>> round(point.item(), 6)
        -0.1

    References:
        Malkiel & Wolf, "MTAdam", 2020. Adam's ratio needs no common scale; with an anchor, one task whose gradients vanish
        stalls all others.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        mode: Literal["balanced", "equal"] = "balanced",
        weights: Weights = None,
        weight_decay: float = 0.0,
        *,
        amsgrad: bool = False,
        length_beta: float = 0.9,
        length_over: LengthOver = "tensor",
        foreach: bool | None = None,
        tasks: Iterable[str] | None = None,
        max_norm: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        if mode not in ("balanced", "equal"):
            raise ValueError(f"mode is 'balanced' or 'equal', got {mode!r}")
        if len(betas) != 2:
            raise ValueError(f"MTAdamV2: betas are two, of both moments, got {betas}")
        if not 0 <= length_beta < 1:
            raise ValueError(f"MTAdamV2: length_beta is in 0 <= length_beta < 1, got {length_beta}")
        check_length_over(length_over)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "mode": mode,
            "weights": weights,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "length_beta": length_beta,
            "length_over": length_over,
            "foreach": foreach,
        }
        super().__init__(params, defaults, tasks=tasks, max_norm=max_norm, group=group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state back.

        Raises:
            ValueError: it is of the other mode.
        """
        stored = {group.get("mode") for group in state_dict["param_groups"]}
        if stored != {self.defaults["mode"]}:
            raise ValueError(
                f"the stored state is of MTAdamV2 in mode {', '.join(map(repr, stored))}, this one has the mode "
                f"{self.defaults['mode']!r}: make it with the mode that was saved"
            )
        super().load_state_dict(state_dict)

    def _factors(
        self,
        options: Mapping[str, Any],
        by_task: Mapping[str, Memory],
        present: Mapping[str, Memory],
        lengths: Mapping[str, float],
    ) -> dict[str, float]:
        weights = self._weights(options)
        own = {task: mean_length(each, lengths[task], options["length_beta"]) for task, each in present.items()}
        return {task: weights[task] / length if length > 0 else 1.0 for task, length in own.items()}

    def _move(self, options: Mapping[str, Any], bucket: Bucket) -> None:
        lr, divisor = float(options["lr"]), float(len(bucket.tasks))
        mtadam(bucket, lr, options["betas"], options["eps"], options["weight_decay"], divisor)

    def _take(self, given: Mapping[str, Tensor]) -> None:
        if self.defaults["mode"] == "balanced":
            super()._take(given)
            return
        if given or self.ranks.size > 1:
            parameters, found = self._gradients(self._mean(given), (MEAN,))
            if MEAN in found.rows:
                self._adam(parameters, found.rows[MEAN])

    def _mean(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted mean of the losses, as the only loss."""
        weights = self.param_groups[0]["weights"]
        if not given:
            return {}
        with torch.enable_grad():
            if weights is None:
                return {MEAN: reduce(torch.add, given.values()) / len(given)}
            factors = shares(weights, self.tasks)
            return {MEAN: reduce(torch.add, (loss * factors[task] for task, loss in given.items()))}

    def _adam(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """One step of torch's own Adam; a parameter's state is what torch.optim.Adam keeps."""
        for options, places in self._groups(parameters):
            names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if options["amsgrad"] else ()))
            reached = [place for place in places if gradients[place] is not None]
            states = [self.state[parameters[place]] for place in reached]
            for place, state in zip(reached, states, strict=True):
                if not state:
                    state["step"] = torch.tensor(0.0, dtype=torch.float32)
                    for name in names:
                        state[name] = torch.zeros_like(parameters[place], memory_format=torch.preserve_format)
            adam(
                [parameters[place] for place in reached],
                _given(gradients, reached),
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [state["max_exp_avg_sq"] for state in states if options["amsgrad"]],
                [state["step"] for state in states],
                foreach=options["foreach"],
                decoupled_weight_decay=True,
                amsgrad=options["amsgrad"],
                beta1=options["betas"][0],
                beta2=options["betas"][1],
                lr=options["lr"],
                weight_decay=options["weight_decay"],
                eps=options["eps"],
                maximize=False,
            )


def _given(gradients: Sequence[Tensor | None], places: Sequence[int]) -> list[Tensor]:
    return [part for place in places if (part := gradients[place]) is not None]
