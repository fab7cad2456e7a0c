"""Reading of results: finished runs below any folder, as one plan and one set of arrays for each workload.

Paths flow in; frozen values with arrays by seed, epoch and task flow out. This room must not import any other room of the
reports, and reads files alone, never a model.
"""
