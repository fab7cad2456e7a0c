"""Logging of runs in MLflow, TensorBoard and Weights & Biases, from the record that every run writes.

In: the events and the result in a run's folder. Out: the same numbers in the store of another package, and ``tracking.json`` in
the run's folder, which names the tracked run, so that a resumed run continues it. This package must not import models, batches or
the loop; a failure in it is a warning and does not affect the run.
"""
