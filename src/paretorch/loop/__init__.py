"""The loop over epochs and the evaluation of a split, shared by single models, fronts and evolutionary searches.

In: a training that has batches, an update per batch and an evaluation per epoch; a workload, a model and streams. Out: the calls
in their order, and losses and metrics. The package must not import core, pareto, optimizers or training.
"""
