"""Loading: from the images of a source, or from a data set or loader of the user, to batches.

A source of labelled images or scenes and a seed go in; the images of each split and streams of batches, read by worker
processes, come out. The files ``loader_*`` make a stream of any data set or data loader. This package must not import a data
format, a pack or a workload.
"""
