"""The menu of ``paretorch interactive``: questions on the console that describe one run.

In: answers from options of the command line and from the standard input. Out: a :class:`~paretorch.training.run.Run`, which the
menu trains, reports, and prints as a command without questions. It finds image data but does not read them.
"""
