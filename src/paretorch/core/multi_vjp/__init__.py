"""Multi-VJP: the cotangents of many tasks through the shared part of the autograd graph.

In: losses and their graph. Out: the Gramian of the tasks' gradients on the shared parameters, mostly without these gradients,
and the gradient of a weighted sum. The Balancer is the only user, and imports from this file alone. The rules
depend on private names of autograd, so every result is checked against autograd. The package must not depend on methods,
options or ``.grad``.
"""

from paretorch.core.multi_vjp.levels import LevelCache
from paretorch.core.multi_vjp.rule_backward import samples_save_time
from paretorch.core.multi_vjp.shared_cotangents import SharedCotangents
from paretorch.core.multi_vjp.shared_graph import SharedGraph, find_shared_graph, saves_time

__all__ = ["LevelCache", "SharedCotangents", "SharedGraph", "find_shared_graph", "samples_save_time", "saves_time"]
