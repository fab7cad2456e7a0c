"""What a metric of one task is: samples are added, then it is computed over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from torch import Tensor


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
        """The metric over all samples added; nan if none is labelled. A tensor with one real number is read as a float, too."""


def real_number(value: Any) -> float:
    """What a metric returned as a float.

    Args:
        value: a float, an int, a bool, a number of NumPy, or a tensor or an array with one element.

    Raises:
        ValueError: it is not one real number, or is beyond the range of a float.

    Example:
        >>> import torch
        >>> real_number(torch.tensor([0.5])), real_number(True)
        (0.5, 1.0)
        >>> real_number("0.5")
        Traceback (most recent call last):
        ...
        ValueError: expected a real number, such as a float or a tensor with one element, got str
    """
    found, kind = value, type(value).__name__
    if isinstance(value, Tensor):
        if value.numel() == 1:
            found = value.detach().item()
        kind = f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    elif isinstance(value, np.ndarray | np.generic):
        if value.size == 1:
            found = value.item()
        kind = f"an array of {value.dtype} and shape {value.shape}"
    if isinstance(found, Real):
        try:
            return float(found)
        except OverflowError:
            kind += " beyond the range of a float"
    raise ValueError(f"expected a real number, such as a float or a tensor with one element, got {kind}")
