"""Diagnosis of a model with several losses: what its gradients are like, and which way of training follows from it.

In: a model, a function that computes its losses, and batches. Out: a :class:`~.results.Diagnosis`: measurements at the initial
weights and after a short training of a copy, wiring faults, and advice in words. The model is not changed. This package must not
write files, print, or depend on studies, reports and commands.
"""

from paretorch.diagnosis.diagnose import diagnose
from paretorch.diagnosis.results import Diagnosis

__all__ = ["Diagnosis", "diagnose"]
