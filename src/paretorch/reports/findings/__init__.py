"""Findings of a report: sentences computed from a summary, and the definitions of its numbers.

A summary flows in; text flows out. This package must not import tables, figures or a page.
"""
