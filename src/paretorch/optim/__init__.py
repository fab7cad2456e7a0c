"""Optimizers that see every task's gradient, and the presets of those that a study compares."""

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
