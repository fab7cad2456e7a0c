"""Reading of results: finished runs below any folder, as one plan and one set of arrays for each workload.

Paths flow in; frozen values with arrays by seed, epoch and task flow out. This package must not import any other package of the
reports, and reads files alone, never a model.
"""
