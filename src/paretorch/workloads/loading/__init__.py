"""Loading: from the images of a source to batches.

A source of labelled images or scenes and a seed go in; the images of each split and streams of batches, read by worker
processes, come out. This package must not import a data format, a pack or a workload.
"""
