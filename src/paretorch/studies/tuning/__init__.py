"""Tuning: the hyperparameters of a run, the search for them, and the record of its trials.

In: the runs of a study and the criterion of each finished trial. Out: the runs to train next and, at the end, a
:class:`~paretorch.studies.tuning.trials.TuningResult`. It does not depend on folders and processes;
:mod:`paretorch.studies.tuner` connects it to them.
"""
