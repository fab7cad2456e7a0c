"""Figures of a report, each described once as a value and drawn by two renderers.

A summary flows in; ``interactive`` turns a described figure into JSON for the page's script, and ``paper`` turns it into files
by matplotlib. This package must not import findings or a page.
"""
