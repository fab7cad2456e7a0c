"""Reports about data on disk, for ``paretorch data check`` and ``paretorch data pack``.

A data set's folder and its readers go in; a report of what was found and which problems there are comes out, and its text.
This package must not import a model or a workload.
"""
