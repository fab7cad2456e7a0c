"""A balancing method as an optimizer asks it: its state, and weights from gradients in a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.gradients.rounding import product_rounding
from paretorch.core.gradients.task_gradients import summing_dtype
from paretorch.core.method.state_buffers import draws
from paretorch.core.method.state_fields import named_tensors, rebuilt
from paretorch.optim.per_task.gradients import TaskGradients


class Weighing:
    """Holds the state of a method that answers with weights.

    Args:
        method: looks at losses or inner products.
        seed: of its random draws.

    Raises:
        ValueError: the method needs more than that.
    """

    def __init__(self, method: Method[Any], seed: int) -> None:
        if not isinstance(method, Method):
            raise ValueError(f"expected a balancing method such as paretorch.MGDA(), got {method!r}")
        if Need.JACOBIAN in method.needs or method.batches > 1 or method.observes:
            raise ValueError(
                "Preconditioned takes a method that answers with weights for one batch, from losses or inner products; "
                f"{method} does not. Use it in a Balancer, beside torch.optim.Adam"
            )
        self.method, self.seed = method, seed
        self.tasks: tuple[str, ...] = ()
        self.state: Any = None
        self.steps = 0
        self.balance: Balance | None = None

    def know(self, tasks: tuple[str, ...]) -> None:
        """Declares the tasks; later ones join as long as nothing is remembered of each.

        Raises:
            ValueError: the method remembers its tasks.
        """
        if not tasks or tasks == self.tasks:
            return
        if self.state is not None:
            raise ValueError(
                f"{self.method} remembers its tasks {self.tasks} and got {tasks}: declare all of them with "
                "Preconditioned(params, method, tasks=...)"
            )
        self.tasks = tasks
        self.state = self.method.init(tasks, torch.zeros((), dtype=torch.float64))

    def weights(self, gramian: Tensor, losses: Mapping[str, float], resolution: float) -> dict[str, float]:
        """One step of the method: weights by task, one each where the tasks' gradients are equal; zero for absent tasks.

        Args:
            gramian: (all, all) in float64 on the host.
            losses: the values that are known, by task.
            resolution: bound on the rounding error of an inner product, relative to the lengths of the two gradients.
        """
        present = gramian.diagonal() > 0
        index = present.nonzero().flatten()
        names = tuple(self.tasks[place] for place in index.tolist())
        values = torch.tensor([losses.get(task, math.nan) for task in names], dtype=torch.float64)
        evidence = Evidence(
            tasks=names,
            present=present,
            losses=None if bool(values.isnan().any()) else values,
            gramian=gramian[index][:, index],
            factor=torch.ones_like(values),
            generator=draws(self.seed, self.steps),
            resolution=resolution,
        )
        answer, self.state = self.method.calibrated(evidence, self.state)
        assert answer.weights is not None
        self.steps += 1
        full = torch.zeros(len(self.tasks), dtype=torch.float64).index_copy(0, index, answer.weights / len(names))
        told = torch.tensor([losses.get(task, math.nan) for task in self.tasks], dtype=torch.float64)
        self.balance = Balance(full, answer.status, tasks=self.tasks, present=present, gramian=gramian, losses=told)
        return dict(zip(self.tasks, full.tolist(), strict=True))

    def end_epoch(self) -> None:
        """Tells a method that counts in epochs that one has ended."""
        self.state = self.method.end_epoch(self.state)

    def state_dict(self) -> dict[str, Any]:
        """The method's state field by field, and the steps it has taken."""
        return {"tasks": self.tasks, "steps": self.steps, "state": named_tensors(self.state)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes the state back.

        Raises:
            ValueError: it is of another method.
        """
        self.tasks = tuple(state_dict["tasks"])
        made: Any = self.method.init(self.tasks, torch.zeros((), dtype=torch.float64)) if self.tasks else None
        fields = tuple(named_tensors(made))
        if set(fields) != set(state_dict["state"]):
            raise ValueError(
                f"the stored state is of another method: {self.method} keeps {fields or 'nothing'}, "
                f"got {tuple(state_dict['state']) or 'nothing'}"
            )
        self.state = rebuilt(made, iter([state_dict["state"][name].clone() for name in fields]))
        self.steps = int(state_dict["steps"])


def metric_gramian(
    gradients: TaskGradients, tasks: Sequence[str], inverse: Mapping[int, Tensor]
) -> tuple[Tensor, float]:
    """(all, all) inner products <g_s, M^-1 g_t> in float64 on the host, and the bound on their rounding, relative to the lengths.

    Rows are brought to length one before the products are summed, so that no square leaves the range of float32.

    Args:
        gradients: of the present tasks.
        tasks: all of them, in order.
        inverse: by place of a parameter, the diagonal of M^-1; places that are left out do not count.
    """
    here = [task for task in gradients.tasks if any(gradients.lengths[task][place] > 0 for place in inverse)]
    lengths = {task: math.hypot(*(gradients.lengths[task][place] for place in inverse)) for task in here}
    total = torch.zeros(len(here), len(here), dtype=torch.float64)
    spacing, summands = torch.finfo(torch.float64).eps, 0
    for place, diagonal in inverse.items():
        wide = diagonal.to(summing_dtype(diagonal.dtype))
        spacing, summands = max(spacing, torch.finfo(wide.dtype).eps), summands + wide.numel()
        rows = [gradients.rows[task][place] for task in here]
        units = [
            torch.zeros_like(wide) if row is None else row.to(wide.dtype) / lengths[task]
            for task, row in zip(here, rows, strict=True)
        ]
        if units:
            matrix = torch.stack([unit.flatten() for unit in units])
            total += (matrix @ (matrix * wide.flatten()).T).to("cpu", torch.float64)
    places = torch.tensor([list(tasks).index(task) for task in here], dtype=torch.long)
    sizes = torch.tensor([lengths[task] for task in here], dtype=torch.float64)
    full = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    total = (total + total.T) / 2 * sizes[:, None] * sizes[None, :]
    full[places[:, None], places[None, :]] = total
    return full, product_rounding(spacing, summands)
