"""Runs that train a front instead of one model.

In: a :class:`~paretorch.training.run.Run` with ``front`` and a folder. Out: the files of every run and the
front's models, which :func:`~paretorch.training.fronts.open_front.load_front` reads. It must not import studies or reports.
"""
