"""The shipped studies: one file each, with a function ``study(scale)`` that returns a :class:`~paretorch.studies.study.Study`.

In: a scale and the options of the study. Out: its treatments with their runs. A study names workloads, methods and optimizers as
a user does, so it imports no reports, no runner and no command. The first line of a file is its entry in
``paretorch list studies``.
"""
