"""Packs: images of a source, decoded once and stored as bytes in one file.

A source of image files goes in; a folder comes out that is a source itself and is memory-mapped. This package must
not import a data format, a model or a workload.
"""
