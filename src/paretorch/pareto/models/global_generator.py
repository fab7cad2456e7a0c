"""The global random generator of the process, which fronts in several threads seed and use one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Held from seeding to the last draw: another thread that seeds in between would change the draws.
GLOBAL_GENERATOR = threading.RLock()


@contextmanager
def restored_generator() -> Iterator[None]:
    """A context after which the generator has its former state, written when no other thread draws."""
    forked = torch.random.fork_rng()
    with GLOBAL_GENERATOR:
        forked.__enter__()
    try:
        yield
    finally:
        with GLOBAL_GENERATOR:
            forked.__exit__(None, None, None)
