"""Runs that differ in the seed alone, trained together: their parameters are stacked, and a step is one batched pass.

In: runs and their folders. Out: the files that separate runs write, with results that are equal to rounding. A run that cannot
be trained so is trained by itself; see :mod:`paretorch.training.together.conditions`.
"""
