"""Algorithms that train fronts: one file each, behind one contract.

In: the evidence of a step (losses, preferences, inner products of gradients). Out: weights of the task gradients, or the model
that is trained instead. An algorithm has no parameters and no state, and does not know how its members are executed.
"""
