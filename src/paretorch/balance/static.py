"""Fixed weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from paretorch.core.checks import nearest
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_at_least
from paretorch.core.search_space import PerTask, Range, SearchSpace


@dataclass(frozen=True)
class Static(Method[None]):
    r"""Fixed weights by task name.

    .. math:: w_t = \text{weights}[t]

    With weights that are tuned on validation data, it is a strong baseline.

    Args:
        weights: by task name; finite and at least zero, one of them above zero.

    Raises:
        ValueError: a weight is negative or not finite, or all are zero; or, in the first step, the names are not those of the
            tasks.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.Static({"a": 0.5, "b": 2.0}), losses=torch.tensor([1.0, 1.0]), tasks=("a", "b"))
        tensor([0.5000, 2.0000], dtype=torch.float64)

    References:
        Kurin et al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022;
        Xin et al., "Do Current Multi-Task Optimization Methods in Deep Learning Even Help?", NeurIPS 2022.
    """

    weights: Mapping[str, float]
    needs = Need.LOSSES
    search_space: ClassVar[SearchSpace] = {"weights": PerTask(Range(1e-3, 1e3, log=True))}

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise ValueError(
                f"Static takes weights by task name, such as {{'left': 1.0, 'right': 0.5}}; got {self.weights!r}"
            )
        for name, weight in self.weights.items():
            check_at_least(f"the weight of {name!r}", weight)
        if not any(self.weights.values()):
            raise ValueError(f"Static takes a weight above 0 for one task at least, got {dict(self.weights)}")

    def __hash__(self) -> int:
        return hash(tuple(self.weights.items()))

    def init(self, tasks: tuple[str, ...], like: Tensor) -> None:
        missing = [name for name in tasks if name not in self.weights]
        unknown = [name for name in self.weights if name not in tasks]
        if unknown:
            raise ValueError(f"Static has a weight for {unknown[0]!r}; the tasks are {nearest(unknown[0], tasks)}")
        if missing:
            raise ValueError(
                f"Static has no weight for {', '.join(map(repr, missing))}; every one of {tasks} needs one"
            )

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        return Balance(torch.tensor([float(self.weights[name]) for name in evidence.tasks], dtype=torch.float64)), state
