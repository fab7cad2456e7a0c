r"""Inner products of a linear layer's weight gradients, without the gradients.

With x the (R, n) inputs of a layer and D_t the (R, m) gradients of task t on its outputs, the gradient of the weight is
D_t^T x, and

.. math:: \langle D_s^T x, D_t^T x \rangle = \langle x x^T D_s, D_t \rangle

which for few rows R is far less to compute than the T weight gradients. Both are found in the graph that autograd keeps anyway:
x is what the layer saved for its backward, so nothing hooks the model, and nothing is kept while no Balancer is at work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.gradients.graph import Reach, place, several
from paretorch.core.gradients.task_gradients import across, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.samples import NoRuleError, Rows

# Products by the name of autograd's node: the position of the second factor among its inputs, and where the first is saved.
PRODUCTS = {"AddmmBackward0": (2, "_saved_mat1"), "MmBackward0": (1, "_saved_self")}
ADDED = ("AddmmBackward0", 0)  # the position of what is added
BLOCK = 1 << 19  # numbers that are formed at once: pages that are used again at once cost nothing


class Linear(NamedTuple):
    """How a parameter is used by linear layers only: their nodes, and whether it is what they add (a bias)."""

    leaf: Tensor
    nodes: list[Any]
    bias: bool

    @property
    def rows(self) -> int:
        """R over all uses, from the sizes that are kept beside the inputs: those may have to be computed again to be read."""
        return sum(int(getattr(node, f"{PRODUCTS[type(node).__name__][1]}_sym_sizes")[0]) for node in self.nodes)

    def inputs(self, rows: Rows | None = None) -> Tensor:
        """(R, n) the inputs of all uses, one below the other; of some samples where not all are asked for."""
        parts = [getattr(node, PRODUCTS[type(node).__name__][1]) for node in self.nodes]
        if any(part.layout is not torch.strided for part in parts):
            raise NoRuleError("inputs that are not dense")
        parts = parts if rows is None else [rows.of(part) for part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def flops(self, tasks: int) -> tuple[float, float]:
        """Multiplications for the inner products of ``tasks`` gradients here, and for one gradient formed."""
        if self.bias:
            return 0.0, 0.0
        rows, (m, n) = self.rows, self.leaf.shape
        return min(by_inputs(tasks, rows, n, m), by_gradients(tasks, rows, n, m)), float(rows * n * m)


def by_inputs(tasks: int, rows: int, n: int, m: int) -> float:
    """Multiplications of <x x^T D_s, D_t>."""
    return float(rows * rows * (n + tasks * m) + tasks * tasks * rows * m)


def by_gradients(tasks: int, rows: int, n: int, m: int) -> float:
    """Multiplications of forming every D_t^T x, and of their inner products."""
    return float(tasks * rows * n * m + tasks * tasks * n * m)


def linear_uses(graph: Reach, leaves: Sequence[Tensor]) -> tuple[list[Linear], list[Tensor]]:
    """Which leaves only linear layers of the shared part use, and which others there are.

    A leaf belongs to the former where every edge into its accumulator comes from products of one kind; tied weights, weight
    norm, packed weights and layers that also work outside the shared part are thereby left to the others.
    """
    above: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
    for node, _ in graph.below:
        for position, (lower, _) in enumerate(node.next_functions):
            if lower is not None and (hasattr(lower, "variable") or type(lower).__name__ == "TBackward0"):
                above[lower].append((node, position))
    accumulators = {node.variable: node for node, _ in graph.below if hasattr(node, "variable")}
    linear, others = [], []
    for leaf in leaves:
        use = _use(leaf, above[accumulators[leaf]], above)
        if use is not None and all(several(graph.masks[place((node, 0))]) for node in use.nodes):
            linear.append(use)
        else:
            others.append(leaf)
    return linear, others


def _once(uses: list[tuple[Any, int]]) -> bool:
    return len({node for node, _ in uses}) == len(uses)


def _use(leaf: Tensor, parents: list[tuple[Any, int]], above: dict[Any, list[tuple[Any, int]]]) -> Linear | None:
    if all((type(node).__name__, position) == ADDED for node, position in parents):
        alike = all(
            tuple(leaf.shape) == (node._saved_mat2_sym_sizes[1],) and node._saved_beta == 1 for node, _ in parents
        )
        return Linear(leaf, [node for node, _ in parents], bias=True) if alike and _once(parents) else None
    if leaf.ndim != 2 or not all(type(node).__name__ == "TBackward0" for node, _ in parents):
        return None
    uses = [use for node, _ in parents for use in above[node]]
    for node, position in uses:
        name = type(node).__name__
        if name not in PRODUCTS or PRODUCTS[name][0] != position or getattr(node, "_saved_alpha", 1) != 1:
            return None
    return Linear(leaf, [node for node, _ in uses], bias=False) if _once(uses) else None


def inner_products(linear: Linear, gradients: Tensor, samples: Rows | None = None) -> Tensor:
    """(k, k) inner products of k tasks' gradients on one parameter.

    Args:
        linear: how it is used.
        gradients: (k, R, m) of the layers' outputs, R over all uses.
        samples: to which the R rows belong; None: to all.
    """
    gradients = gradients.to(summing_dtype(gradients.dtype))
    tasks, rows, m = gradients.shape
    if linear.bias:
        sums = gradients.sum(dim=1)
        return gram(sums)
    inputs = linear.inputs(samples).detach().to(gradients.dtype)
    n = inputs.shape[1]
    if by_inputs(tasks, rows, n, m) <= by_gradients(tasks, rows, n, m):
        between = inputs @ inputs.T
        products = torch.zeros(tasks, tasks, dtype=wide_dtype(gradients), device=gradients.device)
        size = max(1, rows // 4, BLOCK // max(1, tasks * m))  # few rows at a time make slow products
        moved = gradients.new_empty(tasks * min(size, rows) * m)
        for first in range(0, rows, size):
            some = between[first : first + size].expand(tasks, -1, rows)
            out = torch.bmm(some, gradients, out=moved[: some.shape[0] * some.shape[1] * m].view(tasks, -1, m))
            products += across(out.view(tasks, -1), gradients[:, first : first + size].reshape(tasks, -1))
        return (products + products.T) / 2
    total = torch.zeros(tasks, tasks, dtype=wide_dtype(gradients), device=gradients.device)
    for part in gradients.split(max(1, BLOCK // max(1, tasks * n)), dim=2):
        total += gram(torch.matmul(part.transpose(1, 2), inputs).reshape(tasks, -1))
    return total


def gram(rows: Tensor) -> Tensor:
    """(k, k) inner products of (k, n) rows, summed as they are, in float64 where the device has it."""
    return across(rows, rows)
