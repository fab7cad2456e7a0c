"""Time of a step over that of the plain sum of losses, and its peak memory."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from contenders import CONTENDERS, Step
from models import KINDS, Case, made

WARMUP = 3
FEWEST, MOST = 3, 40  # rounds
TASKS = (2, 10, 40)
MIB = 2**20


def measure(device: torch.device, tiny: bool, seconds: float, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Every model and number of tasks, small models first; each has its share of the time that is left."""
    end = time.monotonic() + seconds
    pairs = [(kind, tasks) for tasks in ((2,) if tiny else TASKS) for kind in KINDS]
    found: dict[str, Any] = {"cases": {}, "left out": []}
    for place, (kind, tasks) in enumerate(pairs):
        share = (end - time.monotonic()) / (len(pairs) - place)
        name = f"{kind}, T = {tasks}"
        if share < (0.01 if tiny else 2.0):
            found["left out"].append(f"{name}: no time was left")
            continue
        try:
            found["cases"][name] = _case(
                made(kind, tasks, device, tiny), time.monotonic() + share, FEWEST if tiny else MOST
            )
        except Exception:
            found["cases"][name] = {"error": traceback.format_exc()}
        save(found)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _case(case: Case, end: float, rounds: int) -> dict[str, Any]:
    """Median milliseconds, median paired ratio and peak memory by contender; contenders alternate within a round."""
    steps: dict[str, Step] = {}
    memory: dict[str, float | None] = {}
    result: dict[str, Any] = {}
    for name, make in CONTENDERS.items():
        try:
            step = make(case)
            _milliseconds(case, step)  # libraries are loaded, kernels chosen
            expected = _milliseconds(case, step) / 1e3
            is_late = bool(steps) and time.monotonic() + (WARMUP + FEWEST) * expected > end
            if not is_late:
                for _ in range(WARMUP - 2):
                    _milliseconds(case, step)
                memory[name] = _peak(case, step)
        except ModuleNotFoundError as error:
            result[name] = {"left out": str(error)}
            continue
        except Exception:
            result[name] = {"error": traceback.format_exc()}
            _clear(case)
            continue
        if is_late:
            result[name] = {
                "left out": f"{FEWEST} rounds of {expected:.2g} s each do not fit into the time of this case"
            }
        else:
            steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        if turn >= FEWEST and time.monotonic() > end:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(_milliseconds(case, steps[name]))
    for name, values in times.items():
        ratios = [own / base for own, base in zip(values, times["plain"], strict=True)]
        result[name] = {
            "milliseconds": statistics.median(values),
            "over plain": statistics.median(ratios),
            "rounds": len(values),
            "peak MiB": memory[name],
        }
    return result


def _clear(case: Case) -> None:
    for parameter in case.parameters:
        parameter.grad = None


def _milliseconds(case: Case, step: Step) -> float:
    """The time of one step on its device."""
    _clear(case)
    if case.inputs.device.type != "cuda":
        start = time.perf_counter()
        step()
        return (time.perf_counter() - start) * 1e3
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _peak(case: Case, step: Step) -> float | None:
    """The most memory that tensors take during a step, above what parameters and data take; None where torch does not count."""
    _clear(case)
    if case.inputs.device.type != "cuda":
        step()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB
