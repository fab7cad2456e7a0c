"""Displays and warnings during a run.

In: the records of steps and epochs. Out: progress on the terminal, a table of the result, and warnings with a cure when losses
diverge, stagnate, or training waits for data. It does not change the training, and must not
import fronts, studies or reports.
"""
