"""Studies: treatments that are trained on the same seeds and compared with a reference.

In: a study, as a value or by the name of a shipped one, its seeds and a folder. Out: that folder with ``study.json``, one folder
per run, and for a tuned study the trials and what they chose; the functions of :mod:`paretorch.studies.statistics`, which
:mod:`paretorch.reports` applies to finished runs. This package imports neither reports nor the command line, and leaves the
training of a run to :mod:`paretorch.training`.
"""
