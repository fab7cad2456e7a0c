"""The contract of methods, the two doors, their evidence and the exact solvers."""
