"""The levels at which the Gramian of the shared parameters is computed, and the level that each kind of graph uses."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.core.multi_vjp.rule_errors import FailedRuleError
from paretorch.core.multi_vjp.shared_graph import SharedGraph

_LOG = logging.getLogger("paretorch")

HAS_PYTHON = "hooks or other Python code run in the backward"
DISAGREES = "the Gramian does not agree with the gradient"


class Level(enum.IntEnum):
    """How the Gramian is computed, in the order in which levels are tried, from cheap to general.

    ``RULES``: one pass for the cotangents of all tasks, by the rules of :mod:`~paretorch.core.multi_vjp.rules`. It costs
    one backward with k cotangents for each tensor, and is used where every node has a rule and the result agrees with autograd.
    ``LAYERS``: autograd runs once for each task, down to the outputs of linear layers, whose parameters need no gradients. It
    is used where the result agrees with autograd.
    ``EXPLICIT``: autograd runs once for each task, down to the compared parameters. It makes no assumption about the graph.
    """

    RULES = 0
    LAYERS = 1
    EXPLICIT = 2


class GraphLevel(NamedTuple):
    """The level of one kind of graph."""

    level: Level  # the cheapest that agrees with autograd
    tolerance: float  # relative rounding error of a squared length


class LevelCache:
    """The level of each kind of graph. A Balancer keeps it from step to step."""

    def __init__(self) -> None:
        self.levels: dict[int, GraphLevel] = {}
        self._logged: set[str] = set()

    def replace(self, kind: int, level: Level, cause: str | None = None) -> None:
        """Use another level for graphs of this kind, and log the cause once."""
        self.levels[kind] = self.levels.get(kind, GraphLevel(level, 0.0))._replace(level=level)
        if cause is not None and cause not in self._logged:
            self._logged.add(cause)
            _LOG.warning("%s: gradients are computed task by task in graphs like this one, which takes longer", cause)


def cause_of(error: Exception) -> str:
    """Where an error occurred, its type, and the first line of its message."""
    where, why = "the inner products of layers", error
    if isinstance(error, FailedRuleError) and isinstance(error.__cause__, Exception):
        where, why = str(error), error.__cause__
    return f"{where} failed ({type(why).__name__}: {str(why).splitlines()[0] if str(why) else 'no message'})"


def tolerance_of(shared_graph: SharedGraph, stacks: Sequence[Tensor]) -> float:
    """The relative difference of squared lengths from two computations, given the least precise dtype in the graph."""
    dtypes = {stack.dtype for stack in stacks} | {leaf.dtype for leaf in shared_graph.compared}
    for node in shared_graph.nodes:
        dtypes |= {metadata.dtype for metadata in node._input_metadata if metadata.dtype.is_floating_point}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    device = shared_graph.compared[0].device
    precision = _float32_precision()
    if torch.float32 in dtypes and (precision != "highest" or device.type == "cuda"):
        eps = max(eps, 2.0**-8 if precision == "medium" else 2.0**-11)  # bfloat16 or TF32 in products
    return 1e-10 if eps < 1e-12 else eps**0.5


def _float32_precision() -> str:
    """The precision of products of float32 matrices; "medium" where the options of separate backends make it unknown."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the program has set the precision of a backend, which the option for all does not describe
        return "medium"
