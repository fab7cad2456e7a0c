"""Repeated forwards with the random draws, buffers and attributes of a first one.

``ForwardReplay`` gives contexts for the first forward and for those that repeat it; ``BatchNormReplay`` does so for a subsample.
Must not import anything of the search: it depends on modules and random number generators only.
"""
