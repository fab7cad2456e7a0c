"""The fast search: trials are forwards of the heads on features that move along a displacement.

A step is a chain of functions over frozen values: ``batch`` -> ``gradients`` -> ``direction`` -> ``displacement`` ->
``attempt`` (along a ``StepLine``) -> ``Step``; ``FastState`` goes in and comes out, and ``levels`` lists the displacements from
cheap to sure.
Nothing here imports ``backtracking`` or ``newton/``; ``search`` is the only file that is imported from outside.
"""
