r"""Inner products of a linear layer's weight gradients, without the gradients.

With x the (R, n) inputs of a layer and D_t the (R, m) gradients of task t on its outputs, the gradient of the weight is
D_t^T x, and

.. math:: \langle D_s^T x, D_t^T x \rangle = \langle x x^T D_s, D_t \rangle

which for few rows R costs far less than the T weight gradients. Both x and D_t are in the graph that autograd keeps anyway: x
is a saved tensor of the layer's node. The model therefore needs no hooks, and no tensors are kept for this purpose.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paretorch.core.gradients.graph import TaskGraph, has_several_tasks, node_output
from paretorch.core.gradients.task_gradients import gram, inner_products, summing_dtype, wide_dtype
from paretorch.core.multi_vjp.rule_errors import NoRuleError
from paretorch.core.multi_vjp.sample_subset import SampleDim

# Matrix products by class name of the node: the position of the second factor among the inputs, and the attribute of the first.
PRODUCTS = {"AddmmBackward0": (2, "_saved_mat1"), "MmBackward0": (1, "_saved_self")}
BIAS = ("AddmmBackward0", 0)  # the node and the position of the added term
BLOCK = 1 << 19  # entries of an intermediate result on the CPU: small blocks reuse the same memory pages
DEVICE_BLOCK = 1 << 24  # on other devices, where each block costs a launch


class LinearUse(NamedTuple):
    """A parameter that only linear layers use: their nodes, and whether it is their bias."""

    leaf: Tensor
    nodes: list[Any]
    bias: bool

    @property
    def rows(self) -> int:
        """R over all uses, from the saved sizes: to read the inputs themselves may recompute a checkpoint."""
        return sum(int(getattr(node, f"{PRODUCTS[type(node).__name__][1]}_sym_sizes")[0]) for node in self.nodes)

    def inputs(self, samples: Sequence[SampleDim | None]) -> Tensor:
        """(R, n) the concatenated inputs of all uses, each of the given samples; None: of all."""
        parts = [getattr(node, PRODUCTS[type(node).__name__][1]) for node in self.nodes]
        if any(part.layout is not torch.strided for part in parts):
            raise NoRuleError("inputs that are not dense")
        parts = [part if own is None else own.select(part) for part, own in zip(parts, samples, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def multiplications(self, tasks: int) -> tuple[float, float]:
        """The multiplications for the inner products of ``tasks`` gradients, and for one gradient."""
        if self.bias:
            return 0.0, 0.0
        rows, (m, n) = self.rows, self.leaf.shape
        return min(cost_from_inputs(tasks, rows, n, m), cost_from_gradients(tasks, rows, n, m)), float(rows * n * m)


def cost_from_inputs(tasks: int, rows: int, n: int, m: int) -> float:
    """The multiplications of <x x^T D_s, D_t>."""
    return float(rows * rows * (n + tasks * m) + tasks * tasks * rows * m)


def cost_from_gradients(tasks: int, rows: int, n: int, m: int) -> float:
    """The multiplications of all D_t^T x and of their inner products."""
    return float(tasks * rows * n * m + tasks * tasks * n * m)


def linear_uses(graph: TaskGraph, leaves: Sequence[Tensor]) -> tuple[list[LinearUse], list[Tensor]]:
    """The leaves that only linear layers of the shared part use, and the other leaves.

    A leaf is of the first kind if every edge into its accumulator comes from products of one type. Tied weights, weight norm,
    packed weights and layers that are also used outside the shared part are of the second kind.
    """
    above: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
    for node, _ in graph.next_edges:
        for position, (lower, _) in enumerate(node.next_functions):
            if lower is not None and (hasattr(lower, "variable") or type(lower).__name__ == "TBackward0"):
                above[lower].append((node, position))
    accumulators = {node.variable: node for node, _ in graph.next_edges if hasattr(node, "variable")}
    uses, others = [], []
    for leaf in leaves:
        use = _linear_use(leaf, above[accumulators[leaf]], above)
        if use is not None and all(has_several_tasks(graph.task_masks[node_output((node, 0))]) for node in use.nodes):
            uses.append(use)
        else:
            others.append(leaf)
    return uses, others


def _are_distinct(uses: list[tuple[Any, int]]) -> bool:
    return len({node for node, _ in uses}) == len(uses)


def _linear_use(
    leaf: Tensor, parents: list[tuple[Any, int]], above: dict[Any, list[tuple[Any, int]]]
) -> LinearUse | None:
    if all((type(node).__name__, position) == BIAS for node, position in parents):
        is_bias = all(
            tuple(leaf.shape) == (node._saved_mat2_sym_sizes[1],) and node._saved_beta == 1 for node, _ in parents
        )
        return LinearUse(leaf, [node for node, _ in parents], bias=True) if is_bias and _are_distinct(parents) else None
    if leaf.ndim != 2 or not all(type(node).__name__ == "TBackward0" for node, _ in parents):
        return None
    uses = [use for node, _ in parents for use in above[node]]
    for node, position in uses:
        name = type(node).__name__
        if name not in PRODUCTS or PRODUCTS[name][0] != position or getattr(node, "_saved_alpha", 1) != 1:
            return None
    return LinearUse(leaf, [node for node, _ in uses], bias=False) if _are_distinct(uses) else None


def parameter_products(use: LinearUse, gradients: Tensor, samples: Sequence[SampleDim | None]) -> Tensor:
    """(k, k) inner products of the gradients of k tasks on one parameter.

    Args:
        use: the parameter and its layers.
        gradients: (k, R, m) on the outputs of the layers, R over all uses.
        samples: for each layer the samples that its rows belong to; None: all.
    """
    gradients = gradients.to(summing_dtype(gradients.dtype))
    tasks, rows, m = gradients.shape
    if use.bias:
        sums = gradients.sum(dim=1)
        return gram(sums)
    inputs = use.inputs(samples).detach().to(gradients.dtype)
    n = inputs.shape[1]
    entries = BLOCK if gradients.device.type == "cpu" else DEVICE_BLOCK
    if cost_from_inputs(tasks, rows, n, m) <= cost_from_gradients(tasks, rows, n, m):
        between = inputs @ inputs.T
        products = torch.zeros(tasks, tasks, dtype=wide_dtype(gradients), device=gradients.device)
        size = max(1, rows // 4, entries // max(1, tasks * m))  # products with very few rows are slow
        buffer = gradients.new_empty(tasks * min(size, rows) * m)
        for first in range(0, rows, size):
            block = between[first : first + size].expand(tasks, -1, rows)
            out = torch.bmm(block, gradients, out=buffer[: block.shape[0] * block.shape[1] * m].view(tasks, -1, m))
            products += inner_products(out.view(tasks, -1), gradients[:, first : first + size].reshape(tasks, -1))
        return (products + products.T) / 2
    total = torch.zeros(tasks, tasks, dtype=wide_dtype(gradients), device=gradients.device)
    for part in gradients.split(max(1, entries // max(1, tasks * n)), dim=2):
        total += gram(torch.matmul(part.transpose(1, 2), inputs).reshape(tasks, -1))
    return total
