"""Task gradients on a surface, the Gramian they have, and the one combination that is sent on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

Scratch = dict[int, Tensor]  # by leaf
Row = Sequence[Tensor | None]  # one task's gradient, leaf by leaf; None where the task does not reach the leaf

FEW = 16  # on a CPU, (k, n) (n, k) with so small a k is faster as a sum of products over parts of n
PARTS = 8


class Gradients:
    """The gradients of T tasks with respect to the same leaves (the features, or the shared parameters).

    Args:
        rows: for each of the T tasks its gradient leaf by leaf, or None where the task is absent.
        like: the leaves: shapes, dtypes and device of every row.
        scratch: memory that is kept from step to step to bring rows together in: fresh pages cost more than the copy.
    """

    def __init__(self, rows: Sequence[Row | None], like: Sequence[Tensor], scratch: Scratch | None = None) -> None:
        self.tasks = len(rows)
        self.like = like
        self.scratch = scratch
        present = [(task, row) for task, row in enumerate(rows) if row is not None and any(g is not None for g in row)]
        self.known = [task for task, _ in present]
        self.rows = [row for _, row in present]

    def matrix(self, index: int) -> Tensor:
        """(k, n) the gradients of the k known tasks on one leaf, in float32 or better."""
        leaf = self.like[index]
        parts = [row[index] for row in self.rows]
        zero = torch.zeros_like(leaf) if any(part is None for part in parts) else leaf
        flat = [(zero if part is None else part).reshape(-1) for part in parts]
        if self.scratch is None or leaf.device.type != "cpu":
            return torch.stack(flat).to(summing_dtype(leaf.dtype))
        held = self.scratch.get(index)
        if held is None or held.shape != (len(flat), leaf.numel()) or held.dtype != leaf.dtype:
            held = self.scratch[index] = leaf.new_empty(len(flat), leaf.numel())
        return torch.stack(flat, out=held).to(summing_dtype(leaf.dtype))

    @property
    def resolution(self) -> float:
        """Relative spacing of the numbers in which inner products are summed."""
        return max(torch.finfo(summing_dtype(leaf.dtype)).eps for leaf in self.like)

    def products(self) -> Tensor:
        """(k, k) inner products of the known rows, on their device, summed as they are."""
        with full_precision(self.like[0]):
            parts = [self._products(index) for index in range(len(self.like))]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def _products(self, index: int) -> Tensor:
        leaf = self.like[index]
        parts = [None if (part := row[index]) is None else part.reshape(-1) for row in self.rows]
        if leaf.device.type == "cpu" and len(parts) <= 2:
            return _dots([None if part is None else part.to(summing_dtype(part.dtype)) for part in parts])
        matrix = self.matrix(index)
        if leaf.device.type == "cpu" and len(parts) <= FEW and leaf.numel() % PARTS == 0:
            split = matrix.view(len(parts), PARTS, -1).transpose(0, 1)
            return torch.bmm(split, split.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
        return (matrix @ matrix.T).to(wide_dtype(matrix))

    def gramian(self, products: Tensor) -> Tensor:
        """(T, T) the Gramian in float64 on the host, from :meth:`products` brought there.

        Where a square left the range of float32 (or was zero, or not finite) the rows are first divided by a power of two near
        their largest entry.
        """
        if self.known:
            limits = torch.finfo(summing_dtype(self.like[0].dtype))
            low, high = limits.tiny**0.75, limits.max**0.75
            if not all(low < square < high for square in products.diagonal().tolist()):
                products = self._scaled_products()
        if len(self.known) == self.tasks:
            return products
        full = torch.zeros(self.tasks, self.tasks, dtype=torch.float64)
        index = torch.tensor(self.known, dtype=torch.long)
        full[index[:, None], index[None, :]] = products
        return full

    def _scaled_products(self) -> Tensor:
        """(k, k) inner products in float64 on the host, of rows scaled by powers of two."""
        with full_precision(self.like[0]):
            matrices = [self.matrix(index) for index in range(len(self.like))]
            largest = torch.stack([m.abs().amax(dim=1).to(wide_dtype(m)) for m in matrices]).amax(dim=0)
            usable = torch.isfinite(largest) & (largest > 0)
            exponent = torch.where(usable, torch.frexp(torch.where(usable, largest, 1.0)).exponent, 0)
            factor = torch.exp2(-exponent.to(largest))[:, None]  # may lie outside float32: multiplied in the wide dtype
            scaled = [(m.to(factor) * factor).to(m.dtype) for m in matrices]
            products = torch.stack([(m @ m.T).to(wide_dtype(m)) for m in scaled]).sum(dim=0)
        products, host = to_host([products, exponent])
        return torch.ldexp(products, host[:, None] + host[None, :])

    def combined(self, weights: Tensor) -> list[Tensor]:
        """sum_t w_t g_t for each leaf, in the leaf's dtype; a task of weight zero is not touched, whatever its gradient holds.

        Args:
            weights: (T,) on the host.
        """
        values = weights.tolist()
        used = [(values[task], row) for task, row in zip(self.known, self.rows, strict=True) if values[task] != 0]
        return [_weighted_sum([(w, row[index]) for w, row in used], leaf) for index, leaf in enumerate(self.like)]

    def jacobian(self, present: Tensor) -> Tensor:
        """(T', n) the gradients of the present tasks as rows, in float32 or better, on their device."""
        first = self.like[0]
        size = sum(leaf.numel() for leaf in self.like)
        full = torch.zeros(self.tasks, size, dtype=summing_dtype(first.dtype), device=first.device)
        if self.known:
            full[self.known] = torch.cat([self.matrix(index).to(full.dtype) for index in range(len(self.like))], dim=1)
        return full[present.to(full.device)]

    def split(self, update: Tensor) -> list[Tensor]:
        """An (n,) update as one tensor for each leaf."""
        parts = update.split([leaf.numel() for leaf in self.like])
        return [part.to(leaf.dtype).view(leaf.shape) for part, leaf in zip(parts, self.like, strict=True)]

    def summed(self) -> list[Tensor]:
        """The plain sum of the rows, leaf by leaf."""
        return self.combined(torch.ones(self.tasks, dtype=torch.float64))


def _dots(parts: Sequence[Tensor | None]) -> Tensor:
    """(k, k) inner products one by one; zero where a part is missing."""
    result = [[0.0] * len(parts) for _ in parts]
    for one, a in enumerate(parts):
        for other, b in enumerate(parts[: one + 1]):
            if a is not None and b is not None:
                result[one][other] = result[other][one] = torch.dot(a, b).item()
    return torch.tensor(result, dtype=torch.float64)


def _weighted_sum(terms: Sequence[tuple[float, Tensor | None]], leaf: Tensor) -> Tensor:
    """A new tensor like the leaf, summed in float32 or better."""
    total = None
    for weight, part in terms:
        if part is None:
            continue
        if total is None:
            total = part.to(summing_dtype(part.dtype)) * weight
        else:
            total.add_(part, alpha=weight)
    return torch.zeros_like(leaf) if total is None else total.to(leaf.dtype)


def summing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or the dtype itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast, which is live inside ``backward()``, is off."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the host (floating ones in float64), with one transfer for all that are elsewhere."""
    away = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if not away:
        return [tensor.to(torch.float64) if tensor.is_floating_point() else tensor for tensor in tensors]
    flat = torch.cat([tensor.reshape(-1).to(wide_dtype(tensor)) for tensor in away]).cpu()
    parts = iter(flat.split([tensor.numel() for tensor in away]))
    result = []
    for tensor in tensors:
        host = tensor if tensor.device.type == "cpu" else next(parts).view(tensor.shape)
        result.append(host.to(torch.float64 if tensor.is_floating_point() else tensor.dtype))
    return result


def by_sample(leaves: Sequence[Tensor]) -> Tensor | None:
    """(B, D) the leaves side by side, where all share a leading batch dimension; None where they do not.

    Only with a single leaf is the (B, D) layout that of a row of :class:`Gradients`; several leaves are told apart by None.
    """
    if len(leaves) != 1 or leaves[0].ndim < 2:
        return None
    return leaves[0].detach().reshape(leaves[0].shape[0], -1)
