"""States of all random generators that a run may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch, the latter on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - users draw from it
    torch.manual_seed(seed)


def capture(device: torch.device) -> dict[str, Any]:
    """The states of all generators: plain values, and tensors of bytes for torch's."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "cpu": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["device"] = torch.mps.get_rng_state()
    return state


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Restores the states that :func:`capture` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(state["device"])


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Restores the states of all generators after the block."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Requests deterministic kernels from torch within the block, if ``wanted``."""
    if not wanted or torch.are_deterministic_algorithms_enabled():
        yield  # a second request would import torch's compiler, which takes seconds in every training process
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
