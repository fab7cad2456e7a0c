"""The loop over epochs, the evaluation of a split and totals of steps, for single models, fronts and evolutionary searches.

In: a training that has batches, an update per batch and an evaluation per epoch; a workload, a model and streams; statistics of
steps. Out: the calls in their order, losses and metrics, totals. The package must not import core, pareto, optimizers or
training.
"""
