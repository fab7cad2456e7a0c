"""Encoders, heads and whole models of the workloads.

Sizes, widths and names of tasks go in; modules with random or pretrained weights come out. This package must not import data or a
workload.
"""
