"""Data that are generated from a seed, with labels or fronts that are exact.

Sizes and a seed go in; images, labels, objectives and known fronts come out. This package reads no files and must not import a
model or a data format.
"""
