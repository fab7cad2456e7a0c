"""Everything that runs a method: its runner, its state as tensors by name, preferences, and weights for given evidence.

:class:`~paretorch.core.method.runner.MethodRunner` takes the evidence of a step and gives weights or an update; its state is
stored, reset, brought into the order of the declared tasks and loaded here. Nothing here depends on where gradients come from:
autograd, the Fork and the Balancer are not imported.
"""
