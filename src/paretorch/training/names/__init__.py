"""Objects by name: constructors as text, methods, optimizers, devices and workloads.

In: text that a user typed or a file contains, and options of plain values. Out: the object that is named, or an error that
suggests the nearest known name. Text is parsed, never evaluated; the package must not import updates, loops or results.
"""
