"""Where the jobs of a study are trained: processes of this machine, or tasks of a Ray cluster.

In: jobs and their folders from :mod:`paretorch.studies.runner`. Out: events of each job: ``started``, ``progress``, ``note``, and
``finished`` or ``failed``. Both launchers train with the functions of :mod:`paretorch.studies.worker`. This package must not know
studies, tuning or displays.
"""
