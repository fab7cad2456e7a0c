"""Statistics of a report: comparisons with the reference, leaders, expected ranges, and the formatting of numbers.

Results read from files flow in; values that tables, findings and figures share flow out. This package must not import a table,
a finding, a figure or a page.
"""
