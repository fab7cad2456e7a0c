"""Exact solvers for the small (T, T) problems of balancing, in float64 on the host.

A solver takes a Gramian G = J J^T (or its cosines) and returns weights, and whether they satisfy the optimality conditions.
Rows are first brought to unit length, so that no result depends on the length of a gradient or on its ratio to the others.
The package imports types of arrays only; it must not depend on gradients, methods or steps.
"""

from paretorch.core.solvers.minimum_norm import minimum_norm

__all__ = ["minimum_norm"]
