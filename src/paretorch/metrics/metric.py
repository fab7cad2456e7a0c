"""What a metric of one task is: samples are added, then it is computed over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class Metric(ABC):
    """A number about one task on a whole split. Each evaluation makes a new one; sums stay on the device until they are read.

    A metric of your own defines ``name``, ``higher_is_better``, ``update`` and ``compute``. Its value on a split does not depend
    on the batches: accumulate sums, not means of batches.

    Example:
        >>> class Largest(Metric):
        ...     name, higher_is_better, unit = "largest error", False, "metres"
        ...     value = 0.0
        ...     def update(self, output, target):
        ...         self.value = max(self.value, float((output - target).abs().max()))
        ...     def compute(self):
        ...         return self.value
        >>> import torch
        >>> metric = Largest()
        >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 4.0]))
        >>> metric.compute()
        2.0
    """

    name: str
    higher_is_better: ClassVar[bool]
    unit: str = ""

    @abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Adds samples: the head's output, (B, ...), and the targets, (B, ...)."""

    @abstractmethod
    def compute(self) -> float:
        """The metric over all samples added; nan if none is labelled."""
