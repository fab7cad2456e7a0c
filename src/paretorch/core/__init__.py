"""The core: the contract of balancing methods, and everything that computes evidence and runs a method.

A model's losses or features go in; weights, an update and a record come out. The core depends on torch and numpy alone, and
imports no method, optimizer, line search or workload.
"""
