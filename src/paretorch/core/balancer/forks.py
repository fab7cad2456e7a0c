"""Forks in the graph of the losses that a Balancer balances: they do nothing in its backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from paretorch.core.gradients.graph import TaskGraph


@contextmanager
def forks_paused(graph: TaskGraph | None) -> Iterator[None]:
    """Within it the Forks of a graph do nothing, so that each task's gradient is that of its own loss; each warns once.

    Args:
        graph: of the losses; None: it was not walked.
    """
    with ExitStack() as stack:
        for step in {} if graph is None else {node.step: None for node in graph.forks}:
            stack.enter_context(step.paused_by_balancer())
        yield
