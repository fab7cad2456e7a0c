"""The Fork: balances the tasks on the features, inside an ordinary ``backward()``.

Features and losses go in through the autograd nodes of this package; one combined gradient for the encoder comes out, and the
checks report wrong use once. The package does not import the Balancer or the multi-VJP rules, and no method by name.
"""
