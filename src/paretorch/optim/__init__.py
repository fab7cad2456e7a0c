"""Multi-task optimizers: torch optimizers that step from the losses of the tasks.

In: losses by task name. Out: updated parameters, and state that ``state_dict`` contains. Each optimizer is an update rule of
:mod:`~paretorch.optim.per_task` behind one constructor; nothing here depends on workloads, runs or studies.
"""

from paretorch.optim.adatask import AdaTask
from paretorch.optim.mtadam import MTAdam
from paretorch.optim.mtadam_v2 import MTAdamV2
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.preconditioned import Preconditioned
from paretorch.optim.presets import PRESETS, Preset, find_preset

__all__ = [
    "PRESETS",
    "AdaTask",
    "MTAdam",
    "MTAdamV2",
    "MultiTaskOptimizer",
    "Preconditioned",
    "Preset",
    "find_preset",
]
