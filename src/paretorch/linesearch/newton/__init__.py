"""Newton's method for several objectives, for problems that are small enough for their Hessians.

Takes objectives as functions of a vector, or their gradients and Hessians, and returns a direction or the last iterate.
Uses the rules of ``armijo/``; no other part of the line searches imports it.
"""
