"""Armijo's condition for several tasks: which step is accepted, which is tried next, and how long steps can be.

Takes the losses and slopes along a direction (``StepLine``) and a state, and returns a ``SearchResult`` and the next state.
Works on numpy arrays; it must not import torch modules of the search, models or directions.
"""
