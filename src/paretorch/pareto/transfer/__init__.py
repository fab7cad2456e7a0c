"""Transfer of parameters between the models of a front.

In: preferences, losses and gradients of all models. Out: their parameters, changed in place. The package does not import the
training loop; algorithms choose the transfer matrix.
"""
