"""Per-task updates: the gradient of each task on each parameter, and Adam's moments for each task and parameter.

In: losses by task name, parameters, the options of their group. Out: parameters and state, changed in place. The package imports
no optimizer and knows no formula of a paper.
"""
