"""Tables of a report, for the terminal, Markdown, LaTeX, spreadsheets and the page.

A summary flows in; values of text cells flow out. This package must not import findings, a page, or a plotting library.
"""
