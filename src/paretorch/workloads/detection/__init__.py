"""Detection of objects by their centres: boxes as targets, maps of a head, losses and average precision.

Boxes, and the maps of a head go in; losses, detections and metrics come out. This package must not import a data format, a model
or a workload.
"""
