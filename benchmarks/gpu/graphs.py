"""CUDA graphs: a Fork within one, between two, and in a model compiled with ``mode="reduce-overhead"``."""

from __future__ import annotations

import copy
import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from models import Case, made
from torch import Tensor, nn

import paretorch as pt

WHY_NOT = (
    "A Fork finds its weights on the host, with one transfer from the device, and a CUDA graph cannot contain one. Capture what "
    "is before and after it with torch.cuda.make_graphed_callables, and leave the Fork between the graphs; in a compiled model "
    "with mode='reduce-overhead', torch leaves the Fork's operators out of its graphs."
)
ROUNDS, TINY_ROUNDS = 30, 2


def measure(device: torch.device, tiny: bool, seconds: float, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Each mode with its time over that of the eager step and the largest difference of gradients; the capture last."""
    end = time.monotonic() + seconds
    found: dict[str, Any] = {"cases": {}, "left out": []}
    modes: dict[str, Callable[[torch.device, bool], dict[str, Any]]] = {
        "make_graphed_callables around a Fork": _graphed_parts,
        "reduce-overhead, Fork outside": _compiled_parts,
        "reduce-overhead, Fork inside": _compiled_whole,
        "capture of a whole step": _captured,  # a capture that fails may leave the device unusable
    }
    for name, mode in modes.items():
        if time.monotonic() > end:
            found["left out"].append(f"{name}: no time was left")
            continue
        try:
            found["cases"][name] = mode(device, tiny)
        except Exception:
            found["cases"][name] = {"error": traceback.format_exc()}
        save(found)
    return found


def _model(device: torch.device, tiny: bool) -> Case:
    return made("mlp", 3, device, tiny)


def _step(case: Case, encode: Callable[[Tensor], Tensor], heads: Any, layer: pt.Fork) -> None:
    """A step in float32, whose gradients remain in ``.grad``."""
    for parameter in case.parameters:
        parameter.grad = None
    branch = layer(encode(case.inputs))
    losses = [nn.functional.cross_entropy(heads[task](z), case.targets[task]) for task, z in branch.items()]
    torch.stack(losses).sum().backward()


def _compared(
    eager: Callable[[], None], other: Callable[[], None], own: Case, case: Case, tiny: bool
) -> dict[str, Any]:
    """The relative distance of the gradients, and the median of paired ratios of times."""
    ratios = []
    for _ in range(TINY_ROUNDS if tiny else ROUNDS):
        eager_time, other_time = (_seconds(function, own.inputs.device) for function in (eager, other))
        ratios.append(other_time / eager_time)
    expected, found = (
        torch.cat([p.grad.flatten() for p in each.parameters if p.grad is not None]) for each in (own, case)
    )
    distance = float((found - expected).norm() / expected.norm())
    return {"over eager": statistics.median(ratios), "distance of gradients": distance}


def _seconds(function: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _pair(device: torch.device, tiny: bool) -> tuple[Case, Case, pt.Fork, pt.Fork]:
    own = _model(device, tiny)
    other = copy.deepcopy(own)
    return own, other, pt.Fork(pt.MGDA(), own.tasks), pt.Fork(pt.MGDA(), own.tasks)


def _graphed_parts(device: torch.device, tiny: bool) -> dict[str, Any]:
    own, case, layer, other_layer = _pair(device, tiny)
    encode: Any = case.encoder
    heads: Any = case.heads
    if device.type == "cuda":
        features = case.encoder(case.inputs).detach().requires_grad_()
        parts = (case.encoder, *case.heads.values())
        samples = ((case.inputs,), *((features.clone().detach().requires_grad_(),) for _ in case.tasks))
        encode, *graphed = torch.cuda.make_graphed_callables(parts, samples)
        heads = dict(zip(case.tasks, graphed, strict=True))
    return _compared(
        lambda: _step(own, own.encoder, own.heads, layer),
        lambda: _step(case, encode, heads, other_layer),
        own,
        case,
        tiny,
    )


def _compiled_parts(device: torch.device, tiny: bool) -> dict[str, Any]:
    own, case, layer, other_layer = _pair(device, tiny)
    encode = _compiled(case.encoder, device)

    def step() -> None:
        _mark(device)
        _step(case, encode, case.heads, other_layer)

    return _compared(lambda: _step(own, own.encoder, own.heads, layer), step, own, case, tiny)


def _compiled_whole(device: torch.device, tiny: bool) -> dict[str, Any]:
    own, case, layer, other_layer = _pair(device, tiny)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.heads, self.fork = case.encoder, case.heads, other_layer

        def forward(self, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
            branch = self.fork(self.encoder(x))
            losses = [
                nn.functional.cross_entropy(head(branch[task]), targets[task]) for task, head in self.heads.items()
            ]
            return torch.stack(losses).sum()

    whole = _compiled(Whole(), device)

    def step() -> None:
        _mark(device)
        for parameter in case.parameters:
            parameter.grad = None
        whole(case.inputs, case.targets).backward()

    return _compared(lambda: _step(own, own.encoder, own.heads, layer), step, own, case, tiny)


def _compiled(module: nn.Module, device: torch.device) -> Any:
    """The module with reduced overhead; on the CPU, where there are no graphs, without a compiler."""
    if device.type == "cuda":
        return torch.compile(module, fullgraph=True, mode="reduce-overhead")
    return torch.compile(module, fullgraph=True, backend="eager")


def _mark(device: torch.device) -> None:
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def _captured(device: torch.device, tiny: bool) -> dict[str, Any]:
    """Capture a whole step with a Fork; the expected result is the error."""
    case, layer = _model(device, tiny), pt.Fork(pt.MGDA(), ("t0", "t1", "t2"))
    for _ in range(3):
        _step(case, case.encoder, case.heads, layer)
    if device.type != "cuda":
        return {"captured": None, "why not": WHY_NOT}
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            _step(case, case.encoder, case.heads, layer)
    except Exception as error:
        return {"captured": False, "error of torch": str(error).splitlines()[0], "why not": WHY_NOT}
    return {"captured": True}
