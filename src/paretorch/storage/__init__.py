"""Files that this package writes and reads.

In: bytes, JSON values, tensors and nested state from every package above. Out: files that are complete or absent after a crash,
and the same values read back, checked before use. It imports no other package of paretorch, and
must not know runs, models or studies.
"""
