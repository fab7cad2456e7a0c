"""How often a step waits for the device, and where: torch warns of each operation that does."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from contenders import Step, balancer, fork, plain
from models import Case, made

import paretorch as pt

WARMUP = 4  # the first steps of a kind of graph check more
GOALS = {"fork": 1, "balancer": 1}
STEPS: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "fork": fork,
    "fork with losses (GradNorm)": partial(fork, method=pt.GradNorm()),
    "fork with a state (FAMO)": partial(fork, method=pt.FAMO()),
    "balancer": balancer,
    "balancer.total": partial(balancer, by_total=True),
}
CASES = (("mlp", 2), ("mlp", 10), ("cnn", 3))


def measure(device: torch.device, tiny: bool, seconds: float, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The number of waits of one step and their places, by model and step; no numbers without CUDA."""
    del seconds  # a few small steps
    found: dict[str, Any] = {"goals": GOALS, "cases": {}}
    for kind, tasks in CASES:
        for name, make in STEPS.items():
            key = f"{name}: {kind}, T = {tasks}"
            try:
                step = make(made(kind, tasks, device, tiny))
                for _ in range(WARMUP):
                    step()
                places = waits_of(step, device)
                found["cases"][key] = {"waits": None if places is None else sum(places.values()), "places": places}
            except Exception:
                found["cases"][key] = {"error": traceback.format_exc()}
            save(found)
    return found


def waits_of(step: Step, device: torch.device) -> dict[str, int] | None:
    """The places at which a step waits, with their numbers; None without CUDA."""
    if device.type != "cuda":
        step()
        return None
    places: Counter[str] = Counter()

    def record(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message):
            places[_place()] += 1

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = record  # called in the thread of the operation, with its stack
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return dict(places)


def _place() -> str:
    """The innermost line of Paretorch in the stack; that of the innermost file where there is none."""
    frames = traceback.extract_stack()[:-2]
    inside = [frame for frame in frames if "/src/paretorch/" in frame.filename.replace("\\", "/")]
    frame = (inside or frames)[-1]
    return f"{frame.filename.replace(chr(92), '/').split('/src/')[-1]}:{frame.lineno}"
