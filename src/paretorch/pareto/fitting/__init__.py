"""The training of a front, from a workload, an algorithm and preferences.

In: the arguments of :func:`~paretorch.fit_front`. Out: a :class:`~paretorch.pareto.Front`. The package does not branch on the
name of an algorithm and does not import runs or reports.
"""
