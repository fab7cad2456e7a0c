"""Errors of multi-VJP rules. They do not leave the package: the gradients are then computed in another way."""

from __future__ import annotations


class NoRuleError(Exception):
    """No rule covers this part of the graph."""


class FailedRuleError(Exception):
    """A rule raised an unexpected error; the message names the node."""
