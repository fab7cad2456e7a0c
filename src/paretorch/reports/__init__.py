"""Reports: pages, tables and figures of finished runs, computed from their files.

Run folders flow in through ``reading``; ``analysis`` compares them, ``tables``, ``findings`` and ``figures`` describe the
results, and ``page`` writes them as one HTML file. This package must not load a model or start a run, apart from
:func:`paretorch.reports.compare.run_study`.
"""
