"""The Balancer: balances the tasks on the shared parameters, by a call in place of ``backward()``.

Losses go in; the shared parameters are found in their graph, the tasks' gradients or cotangents are computed, and the balanced
gradient is added to ``.grad``. The package does not import the Fork, and no method by name.
"""
