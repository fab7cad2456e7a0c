"""Files of published data sets.

A folder goes in; the folder that has a data set's layout, its lists and readers of its images, labels and tables come out,
with an error that names file and cure for whatever differs. This package must not import a workload, a model or a report.
"""
