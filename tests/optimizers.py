"""A table of every multi-task optimizer and its properties. An exported optimizer without an entry fails a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import paretorch as pt
from paretorch.optim import AdaTask, MTAdam, MTAdamV2, MultiTaskOptimizer, Preconditioned


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimizer and its properties.

    Args:
        name: unique.
        make: the constructor, of parameters and options.
        weighted: has an option ``weights`` of the tasks.
        moments: has Adam's moments for each task and parameter; None: has none, else how it scales gradients.
        adam_steps: of Adam that one step equals for T = 3 equal gradients.
        scale_free: scales of one task's loss that do not change the steps of the shared parameters.
        refuses_float16: float16 parameters raise.
        absent_at_zero: a task whose loss is zero everywhere is absent.
        separate_groups: a step does not depend on how parameters are divided into groups.
    """

    name: str
    make: Callable[..., MultiTaskOptimizer]
    weighted: bool = False
    moments: str | None = None
    adam_steps: int = 1
    scale_free: tuple[float, ...] = ()
    refuses_float16: bool = False
    absent_at_zero: bool = True
    separate_groups: bool = True

    def __call__(self, params: Any, **options: Any) -> MultiTaskOptimizer:
        return self.make(params, **options)


def preconditioned(method: pt.Method[Any], params: Any, **options: Any) -> MultiTaskOptimizer:
    return Preconditioned(params, method, **options)


def with_tasks(make: Callable[..., MultiTaskOptimizer], params: Any, **options: Any) -> MultiTaskOptimizer:
    return make(params, **{"tasks": ("left", "right"), **options})


WIDE = (1e-25, 1e-12, 1e-3, 1e3, 1e12, 1e25)

OPTIMIZERS = [
    OptimizerEntry("MTAdam", MTAdam, True, "first length", 3, (1e-3, 1e3), refuses_float16=True),
    OptimizerEntry("MTAdamV2", MTAdamV2, True, "unit length", 1, WIDE, refuses_float16=True),
    OptimizerEntry("AdaTask", AdaTask, True, "unscaled", 3, refuses_float16=True),
    OptimizerEntry("MTAdamV2-equal", partial(MTAdamV2, mode="equal"), True, absent_at_zero=False),
    OptimizerEntry(
        "MTAdam-group",
        partial(MTAdam, length_over="group", amsgrad=True),
        True,
        adam_steps=3,
        refuses_float16=True,
        separate_groups=False,
    ),
    OptimizerEntry("Preconditioned", partial(preconditioned, pt.UPGrad()), refuses_float16=True),
    OptimizerEntry("Preconditioned-stateful", partial(with_tasks, partial(preconditioned, pt.DWA(window=3)))),
]
BY_NAME = {entry.name: entry for entry in OPTIMIZERS}
PER_TASK = [entry for entry in OPTIMIZERS if entry.moments]
