"""Gradients of several tasks with respect to the same tensors: their Gramian, Jacobian and weighted sums."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.rounding import product_rounding
from paretorch.core.gradients.row_blocks import RowBlock

Row = Sequence[Tensor | None]  # one task's gradient, leaf by leaf; None where the task does not reach the leaf

FEW = 15  # on a CPU, (k, n) (n, k) with k up to this value is faster as a sum of products over parts of n
PARTS = 8
FLOAT32_MAX = torch.finfo(torch.float32).max
CACHED = 1 << 17  # entries of a block that stays in the cache of a CPU


class Leaf(NamedTuple):
    """Shape, dtype and device of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class Gradients:
    """The gradients of T tasks with respect to the same leaves (the features, or the shared parameters).

    Args:
        rows: for each of the T tasks its gradient leaf by leaf, or None where the task is absent.
        like: the leaves, or their shapes, dtypes and device.
        memory: buffers by leaf, reused in every step, for the stacked rows: new pages cost more than the copy.
        batch: the common leading dimension of all leaves. Jacobian rows and updates then have the order (sample, leaf, entry).
            None: (leaf, entry).
        blocks: of which the rows that are given are views, in order of tasks; together they have all leaves, or there is none.
    """

    def __init__(
        self,
        rows: Sequence[Row | None],
        like: Sequence[Tensor | Leaf],
        memory: dict[int, Tensor] | None = None,
        batch: int | None = None,
        blocks: Sequence[RowBlock] = (),
    ) -> None:
        self.tasks = len(rows)
        self.like = like
        self.memory = memory
        self.batch = 1 if batch is None else batch
        self.stacked: dict[int, Tensor] = {}
        self.known: list[int] = []
        self.rows: list[Row] = []
        for task, row in enumerate(rows):
            if row is not None and any(part is not None for part in row):
                self.known.append(task)
                self.rows.append(row)
        # Without the row of a task that reaches no leaf, a block is not the matrix of the known tasks.
        self.blocks = [block for block in blocks if len(block.rows) == len(self.known)]
        for block in self.blocks:
            self.stacked.update(block.columns())

    def without(self, left_out: Mask) -> Gradients:
        """A copy without the gradients of the (T,) tasks."""
        rows: list[Row | None] = [None] * self.tasks
        for task, row in zip(self.known, self.rows, strict=True):
            rows[task] = None if left_out[task] else row
        return Gradients(rows, self.like, self.memory, self.batch)

    def matrix(self, index: int) -> Tensor:
        """(k, n) the gradients of the k known tasks on one leaf, in float32 or better."""
        if index not in self.stacked:
            leaf, size = self.like[index], self.like[index].shape.numel()
            flat = [_zeros(leaf) if (part := row[index]) is None else part for row in self.rows]
            flat = [part.reshape(-1) for part in flat]
            out = None
            if self.memory is not None and leaf.device.type == "cpu":
                out = self.memory.get(index)
                if out is None or out.shape != (len(flat), size) or out.dtype != leaf.dtype:
                    out = self.memory[index] = torch.empty(len(flat), size, dtype=leaf.dtype)
            self.stacked[index] = torch.stack(flat, out=out).to(summing_dtype(leaf.dtype))
        return self.stacked[index]

    @property
    def resolution(self) -> float:
        """A bound on the rounding error of an inner product, relative to the lengths of the two gradients."""
        return resolution_of(self.like)

    @property
    def reached(self) -> list[bool]:
        """For each leaf, whether a task reaches it."""
        return [any(row[index] is not None for row in self.rows) for index in range(len(self.like))]

    def nonfinite_tasks(self) -> Mask:
        """(T,) the tasks whose gradient contains inf or nan, or whose sum overflows."""
        return self.present_and_broken()[1]

    def present_and_broken(self, *others: Tensor) -> tuple[Mask, Mask, list[Tensor]]:
        """(T,) the tasks whose gradient is not zero, :meth:`nonfinite_tasks`, and other tensors from the same transfer."""
        sums = [torch.stack([_widened(part).sum() for part in row if part is not None]).sum() for row in self.rows]
        *found, here = to_host([*others, torch.stack(sums) if sums else torch.zeros(0)])
        present = np.zeros(self.tasks, bool)
        present[self.known] = True
        present[
            self.zero_tasks({task for task, value in zip(self.known, here.tolist(), strict=True) if value == 0})
        ] = False
        return present, nonfinite_mask(here, self.known, self.tasks), found

    def zero_tasks(self, among: Collection[int]) -> list[int]:
        """Those of the given tasks whose gradient is zero everywhere."""
        rows = zip(self.known, self.rows, strict=True)
        return [
            task
            for task, row in rows
            if task in among and not any(bool(part.any()) for part in row if part is not None)
        ]

    def gramian(self, others: Sequence[Tensor] = ()) -> tuple[Array, list[Array]]:
        """(T, T) the Gramian in float64 on the host, and other tensors from the same transfer.

        If a square is outside the safe range of float32 (or zero, or not finite), the rows are first divided by a power of two
        near their largest entry.
        """
        if len(self.rows) <= 2 and self.like[0].device.type == "cpu":
            products, arrays = self._dots(), [tensor.numpy() for tensor in to_host(others)]
        else:
            products, *arrays = [tensor.numpy() for tensor in to_host([self._all_products(), *others])]
        if self.known:
            _, low, high = summing_limits(self.like[0].dtype)
            if not all(low < square < high for square in products.diagonal().tolist()):  # nan is neither
                products = self._scaled_products()
        return with_absent_tasks(products, self.known, self.tasks), arrays

    def _all_products(self) -> Tensor:
        """(k, k) inner products of the known rows, on their device."""
        with full_precision(self.like[0]):
            if self.blocks:
                parts = [gram(columns) for block in self.blocks for columns in self._in_cache(block.rows)]
            else:
                parts = [gram(self.matrix(index)) for index in range(len(self.like))]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    @staticmethod
    def _in_cache(rows: Tensor) -> Sequence[Tensor]:
        """Columns of the rows that stay in the cache of a CPU while their products are computed."""
        if rows.device.type != "cpu":
            return [rows]
        parts: Sequence[Tensor] = rows.split(max(PARTS, CACHED // len(rows) // PARTS * PARTS), dim=1)
        return parts

    def _dots(self) -> Array:
        """(k, k) inner products of one or two rows on the host, one by one."""
        count = len(self.rows)
        result = [[0.0] * count for _ in range(count)]
        for index in range(len(self.like)):
            flat = [None if (part := row[index]) is None else _widened(part.reshape(-1)) for row in self.rows]
            for one, a in enumerate(flat):
                for other, b in enumerate(flat[: one + 1]):
                    if a is not None and b is not None:
                        result[one][other] += torch.dot(a, b).item()
                        result[other][one] = result[one][other]
        return np.array(result).reshape(count, count)

    def _scaled_products(self) -> Array:
        """(k, k) inner products in float64 on the host, of rows scaled by powers of two."""
        with full_precision(self.like[0]):
            matrices = [m for index in range(len(self.like)) if (m := self.matrix(index)).numel()]
            if not matrices:
                return np.zeros((len(self.rows), len(self.rows)))
            largest = torch.stack([m.abs().amax(dim=1).to(wide_dtype(m)) for m in matrices]).amax(dim=0)
            usable = torch.isfinite(largest) & (largest > 0)
            sizes = torch.where(usable, largest, 1.0)
            on_host = sizes.device.type == "mps"  # which has no frexp
            exponent = torch.frexp(sizes.cpu() if on_host else sizes).exponent.to(sizes.device)
            exponent = torch.where(usable, exponent, 0)
            factor = torch.exp2(-exponent.to(largest))[:, None]  # may exceed float32: multiplied in the wide dtype
            scaled = [(m.to(factor) * factor).to(m.dtype) for m in matrices]
            products = torch.stack([gram(m) for m in scaled]).sum(dim=0)
        products, host = to_host([products, exponent])
        return torch.ldexp(products, host[:, None] + host[None, :]).numpy()

    def combined(self, weights: Sequence[float]) -> list[Tensor]:
        """sum_t w_t g_t for each leaf, in the leaf's dtype; the gradients of tasks with weight zero are not read.

        Args:
            weights: (T,).
        """
        used = [(weights[task], row) for task, row in zip(self.known, self.rows, strict=True) if weights[task] != 0]
        vectors = WeightVectors([weight for weight, _ in used])
        return [
            sum_of_rows(matrix, vectors, leaf)
            if (matrix := self.stacked.get(index)) is not None and len(used) == len(self.known)
            else _weighted_sum([(weight, row[index]) for weight, row in used], vectors, leaf)
            for index, leaf in enumerate(self.like)
        ]

    def any(self) -> bool:
        """Whether a gradient has a nonzero entry."""
        return any(bool(part.any()) for row in self.rows for part in row if part is not None)

    def jacobian(self, present: Tensor) -> Tensor:
        """(T', n) the gradients of the present tasks as rows, in float32 or better, on their device."""
        if len(self.blocks) == 1 and len(self.known) == self.tasks and bool(present.all()):
            return self.blocks[0].rows
        first = self.like[0]
        size = sum(leaf.shape.numel() for leaf in self.like)
        check_memory(self.tasks, size, summing_dtype(first.dtype), first.device)
        zeros = torch.zeros(size, dtype=summing_dtype(first.dtype), device=first.device)
        wanted = [task for task, is_present in enumerate(present.tolist()) if is_present]
        if not self.known or not wanted:
            return zeros.expand(len(wanted), size).clone()
        k = len(self.known)
        parts = [self.matrix(index).to(zeros.dtype).view(k, self.batch, -1) for index in range(len(self.like))]
        rows = torch.cat(parts, dim=2).view(k, size)
        if wanted == self.known:
            return rows
        places = {task: place for place, task in enumerate(self.known)}  # an index on the host would be transferred
        return torch.stack([rows[places[task]] if task in places else zeros for task in wanted])

    def split(self, update: Tensor) -> list[Tensor]:
        """An (n,) update as one tensor for each leaf; the inverse of the order in :meth:`jacobian`."""
        rows = update.view(self.batch, -1)
        parts = rows.split([leaf.shape.numel() // self.batch for leaf in self.like], dim=1)
        return [part.to(leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, self.like, strict=True)]

    def summed(self) -> list[Tensor]:
        """The sum of all gradients, leaf by leaf."""
        return self.combined([1.0] * self.tasks)


def nonfinite_mask(sums: Tensor, known: Sequence[int], tasks: int) -> Mask:
    """(T,) the tasks whose sum is not finite, from the (k,) sums of the known tasks on the host."""
    mask = np.zeros(tasks, bool)
    mask[list(known)] = ~np.isfinite(sums.numpy())
    return mask


def with_absent_tasks(products: Array, known: Sequence[int], tasks: int) -> Array:
    """(T, T) the (k, k) products of the known tasks, with zeros for the other tasks."""
    if len(known) == tasks:
        return products
    full = np.zeros((tasks, tasks))
    full[np.ix_(known, known)] = products
    return full


def resolution_of(like: Sequence[Tensor | Leaf]) -> float:
    """A bound on the rounding error of inner products of gradients with these shapes, relative to their lengths."""
    spacing = max(summing_limits(leaf.dtype)[0] for leaf in like)
    return product_rounding(spacing, sum(leaf.shape.numel() for leaf in like))


def gram(rows: Tensor) -> Tensor:
    """(k, k) inner products of (k, n) rows."""
    return inner_products(rows, rows)


def inner_products(one: Tensor, other: Tensor) -> Tensor:
    """(k, m) inner products of (k, n) with (m, n) rows, summed in their dtype, in float64 where the device supports it."""
    size = one.shape[1]
    if one.dtype == torch.float32 and uses_tf32(
        one.device
    ):  # TF32 has 10 bits; products of a matrix and a vector do not use it
        return torch.stack([torch.mv(other, row) for row in one]).to(wide_dtype(one))
    if one.device.type == "cpu" and len(other) <= FEW and size and size % PARTS == 0:
        parts, others = (rows.view(len(rows), PARTS, -1).transpose(0, 1) for rows in (one, other))
        return torch.bmm(parts, others.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    return (one @ other.T).to(wide_dtype(one))


def sum_of_rows(matrix: Tensor, weights: WeightVectors, like: Tensor | Leaf) -> Tensor:
    """sum_t w_t m_t of (k, n) rows with (k,) weights, in the shape and dtype of ``like``."""
    matrix = weights.widened(matrix)
    with full_precision(like):
        return torch.mv(matrix.T, weights.like(matrix)).to(like.dtype).view(like.shape)


class WeightVectors:
    """Numbers on the host as vectors on devices, one for each device and dtype, so that many leaves share a transfer.

    Args:
        weights: (k,).
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = weights
        self._largest = max(map(abs, weights), default=0.0)
        self._made: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def widened(self, tensor: Tensor) -> Tensor:
        """The tensor in float32 or wider, and in float64 where a weight is beyond float32: its product need not be."""
        if self._largest > FLOAT32_MAX:
            return tensor.to(wide_dtype(tensor))
        return _widened(tensor)

    def like(self, tensor: Tensor) -> Tensor:
        """(k,) the numbers on the device and in the dtype of a tensor."""
        kind = tensor.device, tensor.dtype
        if kind not in self._made:
            self._made[kind] = to_device(torch.tensor(self._weights, dtype=tensor.dtype), tensor.device)
        return self._made[kind]


def times(gradient: Tensor, weight: float) -> Tensor:
    """The product in the dtype of the gradient, also where the weight is beyond its range."""
    if weight == 1:
        return gradient
    return (WeightVectors([weight]).widened(gradient) * weight).to(gradient.dtype)


def chunks(items: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """The items in ``count`` parts of equal length."""
    size = len(items) // count
    return [items[part * size : (part + 1) * size] for part in range(count)]


def _weighted_sum(terms: Sequence[tuple[float, Tensor | None]], weights: WeightVectors, leaf: Tensor | Leaf) -> Tensor:
    """A new tensor like the leaf, summed in float32 or better; ``weights`` are those of the terms."""
    total = None
    for weight, part in terms:
        if part is None:
            continue
        if total is None:
            total = weights.widened(part) * weight
        else:
            total.add_(part, alpha=weight)
    if total is None:
        return _zeros(leaf)
    return total if total.dtype == leaf.dtype else total.to(leaf.dtype)


def _widened(tensor: Tensor) -> Tensor:
    """In float32 or wider. The test of the dtype avoids the cost of a conversion that changes nothing."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(summing_dtype(tensor.dtype))


def _zeros(leaf: Tensor | Leaf) -> Tensor:
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device)


@lru_cache(maxsize=16)
def summing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or the dtype itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)


@lru_cache(maxsize=16)
def summing_limits(dtype: torch.dtype) -> tuple[float, float, float]:
    """The relative spacing of the dtype in which products are summed, and the smallest and largest safe square."""
    info = torch.finfo(summing_dtype(dtype))
    return info.eps, info.tiny**0.75, info.max**0.75


def wide_dtype(tensor: Tensor | Leaf) -> torch.dtype:
    """float64 where the device supports it, else float32."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def uses_tf32(device: torch.device) -> bool:
    """Whether products of float32 matrices on the device are computed in TF32."""
    if device.type != "cuda":
        return False
    matmul = torch.backends.cuda.matmul
    # since torch 2.9, where the older option raises in a mix of the two
    precision = getattr(matmul, "fp32_precision", None)
    if precision == "none":  # that of all backends
        precision = getattr(torch.backends, "fp32_precision", "none")
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"


def full_precision(like: Tensor | Leaf) -> AbstractContextManager[object]:
    """A context without autocast, which is active inside ``backward()``."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the host (floating-point ones in float64), with one transfer for all tensors on a device."""
    on_devices: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.device.type != "cpu":
            on_devices.setdefault(tensor.device, []).append(tensor)
    if not on_devices:
        return [tensor.to(torch.float64) if tensor.is_floating_point() else tensor for tensor in tensors]
    parts = {}
    for device, group in on_devices.items():
        flat = torch.cat([tensor.reshape(-1).to(wide_dtype(tensor)) for tensor in group]).cpu()
        parts[device] = iter(flat.split([tensor.numel() for tensor in group]))
    result = []
    for tensor in tensors:
        host = tensor if tensor.device.type == "cpu" else next(parts[tensor.device]).view(tensor.shape)
        result.append(host.to(torch.float64 if tensor.is_floating_point() else tensor.dtype))
    return result


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on a device, without waiting for CUDA, as a transfer from pageable memory does."""
    if device.type == "cpu":
        return tensor
    if device.type == "mps":  # does not keep the host's memory until the transfer has ended
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def common_batch_size(leaves: Sequence[Tensor | Leaf]) -> int | None:
    """The common leading dimension of all leaves; None where there is none."""
    first = {leaf.shape[0] if len(leaf.shape) > 1 else 0 for leaf in leaves}
    return None if len(first) != 1 or 0 in first else first.pop()


def by_sample(leaves: Sequence[Tensor]) -> Tensor | None:
    """(B, D) the leaves concatenated for each sample; None without a common leading dimension."""
    batch = common_batch_size(leaves)
    return None if batch is None else torch.cat([leaf.detach().reshape(batch, -1) for leaf in leaves], dim=1)
