"""Task gradients on a surface, the Gramian they have, and the one combination that is sent on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

Row = Sequence[Tensor | None]  # one task's gradient, leaf by leaf; None where the task does not reach the leaf


class Gradients:
    """The gradients of T tasks with respect to the same leaves (the features, or the shared parameters).

    Args:
        rows: for each of the T tasks its gradient leaf by leaf, or None where the task is absent.
        like: the leaves: shapes, dtypes and device of every row.
    """

    def __init__(self, rows: Sequence[Row | None], like: Sequence[Tensor]) -> None:
        self.tasks = len(rows)
        self.like = like
        self.known = [task for task, row in enumerate(rows) if row is not None and any(g is not None for g in row)]
        self._rows = [row for row in rows if row is not None and any(g is not None for g in row)]

    @classmethod
    def room_for(cls, known: Sequence[int], tasks: int, like: Sequence[Tensor]) -> Gradients:
        """Rows to be :meth:`put` one at a time for the known tasks, so that no gradient is held twice."""
        gradients = cls([None] * tasks, like)
        gradients.known = list(known)
        gradients.matrices = [
            leaf.new_empty(len(known), leaf.numel(), dtype=summing_dtype(leaf.dtype)) for leaf in like
        ]
        return gradients

    def put(self, place: int, row: Row) -> None:
        """Copy a task's gradient into the ``place``-th row made by :meth:`room_for`."""
        for matrix, part in zip(self.matrices, row, strict=True):
            if part is None:
                matrix[place].zero_()
            else:
                matrix[place].view(part.shape).copy_(part)

    @cached_property
    def matrices(self) -> list[Tensor]:
        """For each leaf the (k, n) gradients of the k tasks that are known here, in float32 or better."""
        stacked = []
        for index, leaf in enumerate(self.like):
            parts = [row[index] for row in self._rows]
            zero = torch.zeros_like(leaf) if any(part is None for part in parts) else None
            full = [zero if part is None else part for part in parts]
            stacked.append(
                torch.stack([part.reshape(-1) for part in full if part is not None]).to(summing_dtype(leaf.dtype))
            )
        return stacked

    @property
    def resolution(self) -> float:
        """Relative spacing of the numbers in which inner products are summed."""
        return max(torch.finfo(summing_dtype(leaf.dtype)).eps for leaf in self.like)

    def products(self) -> Tensor:
        """(k, k) inner products of the known rows, on their device, summed as they are."""
        with full_precision(self.like[0]):
            return torch.stack([(m @ m.T).to(wide_dtype(m)) for m in self.matrices]).sum(dim=0)

    def gramian(self, products: Tensor) -> Tensor:
        """(T, T) the Gramian in float64 on the host, from :meth:`products` brought there.

        Where a square left the range of float32 (or was zero, or not finite) the rows are first divided by a power of two near
        their largest entry.
        """
        diagonal = products.diagonal()
        limits = torch.finfo(self.matrices[0].dtype) if self.known else torch.finfo(torch.float32)
        low, high = limits.tiny**0.75, limits.max**0.75
        if self.known and not bool(((diagonal > low) & (diagonal < high)).all()):
            products = self._scaled_products()
        full = torch.zeros(self.tasks, self.tasks, dtype=torch.float64)
        index = torch.tensor(self.known, dtype=torch.long)
        full[index[:, None], index[None, :]] = products
        return full

    def _scaled_products(self) -> Tensor:
        """(k, k) inner products in float64 on the host, of rows scaled by powers of two."""
        with full_precision(self.like[0]):
            largest = torch.stack([m.abs().amax(dim=1).to(wide_dtype(m)) for m in self.matrices]).amax(dim=0)
            usable = torch.isfinite(largest) & (largest > 0)
            exponent = torch.where(usable, torch.frexp(torch.where(usable, largest, 1.0)).exponent, 0)
            factor = torch.exp2(-exponent.to(largest))[:, None]  # may lie outside float32: multiplied in the wide dtype
            scaled = [(m.to(factor) * factor).to(m.dtype) for m in self.matrices]
            products = torch.stack([(m @ m.T).to(wide_dtype(m)) for m in scaled]).sum(dim=0)
        products, host = to_host([products, exponent])
        return torch.ldexp(products, host[:, None] + host[None, :])

    def combined(self, weights: Tensor) -> list[Tensor]:
        """sum_t w_t g_t for each leaf, in the leaf's dtype; a task of weight zero is not touched, whatever its gradient holds.

        Args:
            weights: (T,) on the host.
        """
        used = [place for place, task in enumerate(self.known) if weights[task] != 0]
        if not used:
            return [torch.zeros_like(leaf) for leaf in self.like]
        chosen = weights[[self.known[place] for place in used]]
        result = []
        with full_precision(self.like[0]):
            for leaf, matrix in zip(self.like, self.matrices, strict=True):
                rows = matrix if len(used) == len(self.known) else matrix[used]
                result.append((chosen.to(rows) @ rows).to(leaf.dtype).view(leaf.shape))
        return result

    def jacobian(self, present: Tensor) -> Tensor:
        """(T', n) the gradients of the present tasks as rows, in float32 or better, on their device."""
        first = self.like[0]
        size = sum(leaf.numel() for leaf in self.like)
        full = torch.zeros(self.tasks, size, dtype=summing_dtype(first.dtype), device=first.device)
        if self.known:
            full[self.known] = torch.cat([matrix.to(full.dtype) for matrix in self.matrices], dim=1)
        return full[present.to(full.device)]

    def split(self, update: Tensor) -> list[Tensor]:
        """An (n,) update as one tensor for each leaf."""
        parts = update.split([leaf.numel() for leaf in self.like])
        return [part.to(leaf.dtype).view(leaf.shape) for part, leaf in zip(parts, self.like, strict=True)]

    def summed(self) -> list[Tensor]:
        """The plain sum of the rows, leaf by leaf, as autograd would form it."""
        result = []
        for index, leaf in enumerate(self.like):
            parts = [part for row in self._rows if (part := row[index]) is not None]
            total = parts[0] if parts else torch.zeros_like(leaf)
            for part in parts[1:]:
                total = total + part
            result.append(total if len(parts) > 1 else total.clone())
        return result


def summing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or the dtype itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which autocast, which is live inside ``backward()``, is off."""
    return torch.autocast(like.device.type, enabled=False)


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
