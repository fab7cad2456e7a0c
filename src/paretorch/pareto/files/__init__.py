"""Files of fronts: the folder that stores a front, the export of one model, and which files may be replaced.

In: the values and state dicts of a front, or a path. Out: files, or what they contain. Nothing here is unpickled, and training is
not imported.
"""
