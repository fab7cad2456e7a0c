"""Displays and warnings during a run.

In: the records of steps and epochs. Out: progress on the terminal, a table of the result, and warnings with a cure when losses
diverge, stagnate, or training waits for data. The room changes nothing in the training and knows no front, study or report.
"""
