"""The models of a front as tensors: stacked members, conditional models, and their division over ranks.

In: modules of one architecture and a batch. Out: losses and gradients of all members. The package does not import algorithms or
the training loop.
"""
