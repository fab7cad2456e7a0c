"""Labels for each pixel: classes, distances, directions and offsets.

Outputs of heads and labels go in; losses, metrics, augmented scenes and splits come out. This package must not import a data
format, a model or a workload.
"""
