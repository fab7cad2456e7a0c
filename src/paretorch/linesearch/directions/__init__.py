"""Directions other than the gradient: a metric that all tasks share, or the step of an optimizer.

Takes gradients as rows of tensors, one for each parameter, and returns a direction in the same form.
Must not import a search: directions do not depend on trials, bounds or displacements.
"""
