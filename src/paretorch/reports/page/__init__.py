"""HTML pages of a report and of a front, each one file that needs no network.

Summaries and the files of fronts flow in; HTML text and the written file flow out. This package must not compute a number.
"""
