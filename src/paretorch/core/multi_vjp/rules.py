"""Rules: the backward of autograd nodes for the cotangents of many tasks, on all samples of a batch or on a subset.

Autograd runs one cotangent at a time, on all rows, and keeps every result until the last. A rule computes the same for k
cotangents in one operation, and each result is released as soon as it has been used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.graph import is_leaf
from paretorch.core.multi_vjp.layer_rules import (
    adaptive_average_pool,
    attention,
    average_pool,
    batch_norm,
    convolution,
    embedding,
    group_norm,
    layer_norm,
    linear,
    max_pool,
)
from paretorch.core.multi_vjp.node_backward import Cotangents, InputCotangents, NodeBackward, Rule, signed
from paretorch.core.multi_vjp.rule_errors import FailedRuleError, NoRuleError
from paretorch.core.multi_vjp.sample_subset import SampleDim

ATEN = torch.ops.aten


def _pointwise(name: str, derivative: Callable[[NodeBackward, Tensor], Tensor]) -> tuple[Rule, tuple[str, ...]]:
    return lambda call: call.one_input(derivative(call, call.saved_tensor(name))), (name,)


def _gelu_slope(call: NodeBackward, x: Tensor) -> Tensor:
    """The derivative of GELU, since its backward does not broadcast in every library that torch calls."""
    slope: Tensor = ATEN.gelu_backward(torch.ones_like(x), x, approximate=call.saved("approximate"))
    return slope


def _slope_of(backward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[NodeBackward, Tensor], Tensor]:
    """A pointwise rule by the derivative at every entry, for a backward that does not broadcast."""
    return lambda call, x: call.values * backward(torch.ones_like(x), x)


def _power(call: NodeBackward, x: Tensor) -> Tensor:
    exponent = call.saved("exponent")
    return torch.zeros_like(call.values) if exponent == 0 else call.values * (exponent * x.pow(exponent - 1))


def _where(call: NodeBackward) -> InputCotangents:
    condition = call.saved_tensor("condition")
    return [call.result(call.values.masked_fill(mask, 0)) for mask in (~condition, condition)]


def _relu(call: NodeBackward) -> InputCotangents:
    result = call.saved_tensor("result")
    if call.cotangents.own:
        ATEN.threshold_backward.grad_input(call.values, result, 0, grad_input=call.values)
        return call.one_input(call.values)
    return call.one_input(ATEN.threshold_backward(call.values, result, 0))


def _reshaped(call: NodeBackward) -> InputCotangents:
    shape, samples = call.input_shape(0), call.cotangents.sample_dim
    k, *size = call.values.shape
    if samples is not None:
        samples = samples.reshaped(samples.of_batch(size), shape)
        shape = torch.Size(samples.of_subset(shape))
    return [Cotangents(call.values.reshape(k, *shape), samples, call.cotangents.own)]


def _passed(call: NodeBackward) -> InputCotangents:
    return call.one_input(call.values, call.cotangents.own)


def _t(call: NodeBackward) -> InputCotangents:
    if call.values.ndim <= 2:
        return call.one_input(call.values, own=False)
    return call.one_input(call.values.transpose(-1, -2), own=False, dim=1 - call.samples_at)


def _transpose(call: NodeBackward) -> InputCotangents:
    size = call.values.ndim - 1
    one, other = (signed(call.saved(f"dim{number}")) % size for number in (0, 1))
    at = call.samples_at
    moved = {one: other, other: one}.get(at, at)
    return call.one_input(call.values.transpose(one + 1, other + 1), own=False, dim=moved)


def _permute(call: NodeBackward) -> InputCotangents:
    size = call.values.ndim - 1
    dims = [signed(dim) % size for dim in call.saved("dims")]
    back = sorted(range(size), key=dims.__getitem__)
    values = call.values.permute(0, *(dim + 1 for dim in back))
    return call.one_input(values, own=False, dim=dims[call.samples_at] if dims else None)


def _sum(sign: int) -> Rule:
    def rule(call: NodeBackward) -> InputCotangents:
        factor = sign * call.saved("alpha")
        second = call.values if factor == 1 else call.values * factor
        return [call.result(values, own=False) for values in (call.values, second)]

    return rule


def _product(call: NodeBackward) -> InputCotangents:
    return [
        call.result(call.values * call.saved_tensor(other)) if needed else None
        for needed, other in zip(call.needs_input_grad, ("other", "self"), strict=True)
    ]


def _quotient(call: NodeBackward) -> InputCotangents:
    divisor = call.saved_tensor("other")
    found: InputCotangents = [call.result(call.values / divisor), None]
    if call.needs_input_grad[1]:
        slope = -call.saved_tensor("self") / divisor.square()
        found[1] = call.result(call.values * slope)
    return found


def _mean(call: NodeBackward) -> InputCotangents:
    """Means and sums over given dimensions."""
    shape = call.saved("self_sym_sizes")
    dims = sorted(signed(dim) % len(shape) for dim in call.saved("dim")) or list(range(len(shape)))
    kept = [dim for dim in range(len(shape)) if dim not in dims or call.saved("keepdim")]
    at = kept[call.samples_at] if kept else 0
    values = call.values
    if not call.saved("keepdim"):
        for dim in dims:
            values = values.unsqueeze(dim + 1)
    if type(call.node).__name__.startswith("Mean"):
        values = values / torch.Size(shape[dim] for dim in dims).numel()
    samples = call.cotangents.sample_dim
    full = shape if samples is None else samples._replace(dim=at).of_subset(shape)
    return call.one_input(values.expand(len(values), *full), own=False, dim=at)


def _softmax(call: NodeBackward) -> InputCotangents:
    dim, result = call.dim(call.saved("dim")), call.saved_tensor("result")
    inner = call.values * result
    return call.one_input(inner - result * inner.sum(dim, keepdim=True))


def _batched_product(call: NodeBackward) -> InputCotangents:
    """Products of (b, n, m) and (b, m, p) for (k, b, n, p) cotangents."""
    call.require_samples_first()
    found: InputCotangents = [None, None]
    if call.needs_input_grad[0]:
        found[0] = call.result(call.values @ call.saved_tensor("mat2").transpose(-1, -2))
    if call.needs_input_grad[1]:
        found[1] = call.result(call.saved_tensor("self").transpose(-1, -2) @ call.values)
    return found


def _cat(call: NodeBackward) -> InputCotangents:
    dim = call.dim(call.saved("dim"))
    first, found = 0, list[Cotangents | None]()
    for index, needed in enumerate(call.needs_input_grad):
        shape = call.input_shape(index)
        # an empty one-dimensional tensor can be joined with any others
        size = 0 if len(shape) == 1 and shape[0] == 0 else shape[dim - 1]
        found.append(call.result(call.values.narrow(dim, first, size), own=False) if needed and size else None)
        first += size
    return found


def _stack(call: NodeBackward) -> InputCotangents:
    dim = call.dim(call.saved("dim"))
    at = call.samples_at - (call.samples_at > dim - 1)
    parts = call.values.unbind(dim)
    return [
        call.result(part, own=False, dim=at) if needed else None
        for part, needed in zip(parts, call.needs_input_grad, strict=True)
    ]


def _into_zeros(call: NodeBackward, dim: int, index: slice | int, samples_at: int) -> InputCotangents:
    """The cotangents at their index in a dimension of the input, zero elsewhere."""
    shape, samples = list(call.input_shape(0)), call.cotangents.sample_dim
    if samples is not None:
        shape = samples._replace(dim=samples_at).of_subset(shape)
    full = call.values.new_zeros(len(call.values), *shape)
    full[(slice(None),) * (dim + 1) + (index,)] = call.values
    return call.one_input(full, dim=samples_at)


def _slice(call: NodeBackward) -> InputCotangents:
    size = call.saved("self_sym_sizes")
    dim = call.dim(call.saved("dim")) - 1
    names = ("start", "end", "step")
    start, end, stride = slice(*(signed(call.saved(name)) for name in names)).indices(size[dim])
    return _into_zeros(call, dim, slice(start, end, stride), call.samples_at)


def _select(call: NodeBackward) -> InputCotangents:
    shape = call.saved("self_sym_sizes")
    dim, index = (signed(call.saved(name)) for name in ("dim", "index"))
    dim %= len(shape)
    return _into_zeros(call, dim, index, call.samples_at + (call.samples_at >= dim))


def _unbind(call: NodeBackward) -> InputCotangents:
    dim = signed(call.saved("dim")) % len(call.input_shape(0))
    samples = _samples_of_outputs(call)
    if samples is not None:
        samples = samples._replace(dim=samples.dim + (samples.dim >= dim))
    return _from_outputs(call, samples, lambda full, number: full.select(dim + 1, number))


def _split(call: NodeBackward) -> InputCotangents:
    dim = signed(call.saved("dim")) % len(call.input_shape(0))
    samples = _samples_of_outputs(call)
    if samples is not None and samples.dim == dim:
        raise NoRuleError("a split of the samples")

    def place(full: Tensor, number: int) -> Tensor:
        if type(call.node).__name__ == "SplitBackward0":
            return full.narrow(dim + 1, number * call.saved("split_size"), call.outputs[number].values.shape[dim + 1])
        sizes = call.saved("split_sizes")
        return full.narrow(dim + 1, sum(sizes[:number]), sizes[number])

    return _from_outputs(call, samples, place)


def _samples_of_outputs(call: NodeBackward) -> SampleDim | None:
    """The dimension that counts samples, in which all outputs agree."""
    found = {cotangents.sample_dim for cotangents in call.outputs.values()}
    if len(found) > 1:
        raise NoRuleError("outputs with their samples in several dimensions")
    return found.pop()


def _from_outputs(
    call: NodeBackward, samples: SampleDim | None, place: Callable[[Tensor, int], Tensor]
) -> InputCotangents:
    """The cotangents on the input of a node whose outputs are parts of it; ``place``: of the output with a number."""
    shape: Sequence[int] = call.input_shape(0)
    shape = shape if samples is None else samples.of_subset(shape)
    some = next(iter(call.outputs.values())).values
    full = some.new_zeros(len(some), *shape)
    for number, cotangents in call.outputs.items():
        place(full, number).copy_(cotangents.values)
    return [Cotangents(full, samples, own=True)]


def _elu(call: NodeBackward) -> InputCotangents:
    numbers = [call.saved(name) for name in ("alpha", "scale", "input_scale")]
    return call.one_input(ATEN.elu_backward(call.values, *numbers, False, call.saved_tensor("self")))


def _dropout(call: NodeBackward) -> InputCotangents:
    kept = 1 - call.saved("p")
    return call.one_input(call.values * call.saved_tensor("result1") * (1 / kept if kept > 0 else 0.0))


# By the class name of a node: its rule, and the names of the tensors that the rule reads.
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "AddmmBackward0": (linear(added=True), ("mat1", "mat2")),
    "MmBackward0": (linear(added=False), ("self", "mat2")),
    "ReluBackward0": (_relu, ("result",)),
    "TanhBackward0": _pointwise("result", lambda call, y: ATEN.tanh_backward(call.values, y)),
    "SigmoidBackward0": _pointwise("result", lambda call, y: ATEN.sigmoid_backward(call.values, y)),
    "ExpBackward0": _pointwise("result", lambda call, y: call.values * y),
    "SinBackward0": _pointwise("self", lambda call, x: call.values * x.cos()),
    "CosBackward0": _pointwise("self", lambda call, x: call.values * -x.sin()),
    "SiluBackward0": _pointwise("self", lambda call, x: ATEN.silu_backward(call.values, x)),
    "GeluBackward0": _pointwise("self", lambda call, x: call.values * _gelu_slope(call, x)),
    "LeakyReluBackward0": _pointwise(
        "self", lambda call, x: ATEN.leaky_relu_backward(call.values, x, call.saved("negative_slope"), False)
    ),
    "HardtanhBackward0": _pointwise(
        "self",
        lambda call, x: ATEN.hardtanh_backward(call.values, x, call.saved("min_val"), call.saved("max_val")),
    ),
    "SoftplusBackward0": _pointwise(
        "self",
        lambda call, x: ATEN.softplus_backward(call.values, x, call.saved("beta"), call.saved("threshold")),
    ),
    "EluBackward0": (_elu, ("self",)),
    "HardswishBackward0": _pointwise("self", _slope_of(ATEN.hardswish_backward)),
    "HardsigmoidBackward0": _pointwise("self", _slope_of(ATEN.hardsigmoid_backward)),
    "PowBackward0": _pointwise("self", _power),
    "SqrtBackward0": _pointwise("result", lambda call, y: call.values * (0.5 / y)),
    "RsqrtBackward0": _pointwise("result", lambda call, y: call.values * (-0.5 * y**3)),
    "MaskedFillBackward0": _pointwise("mask", lambda call, mask: call.values.masked_fill(mask, 0)),
    "WhereBackward0": (_where, ("condition",)),
    "NegBackward0": (lambda call: call.one_input(-call.values), ()),
    "AddBackward0": (_sum(1), ()),
    "SubBackward0": (_sum(-1), ()),
    "MulBackward0": (_product, ("self", "other")),
    "MulBackward1": (lambda call: call.one_input(call.values * call.saved("other")), ()),
    "DivBackward0": (_quotient, ("self", "other")),
    "BmmBackward0": (_batched_product, ("self", "mat2")),
    "CatBackward0": (_cat, ()),
    "StackBackward0": (_stack, ()),
    "SliceBackward0": (_slice, ()),
    "SelectBackward0": (_select, ()),
    "UnbindBackward0": (_unbind, ()),
    "SplitBackward0": (_split, ()),
    "SplitWithSizesBackward0": (_split, ()),
    "ViewBackward0": (_reshaped, ()),
    "UnsafeViewBackward0": (_reshaped, ()),
    "ReshapeAliasBackward0": (_reshaped, ()),
    "SqueezeBackward0": (_reshaped, ()),
    "SqueezeBackward1": (_reshaped, ()),
    "UnsqueezeBackward0": (_reshaped, ()),
    "TBackward0": (_t, ()),
    "TransposeBackward0": (_transpose, ()),
    "PermuteBackward0": (_permute, ()),
    "AliasBackward0": (_passed, ()),
    "CloneBackward0": (_passed, ()),
    "ExpandBackward0": (_passed, ()),
    "ToCopyBackward0": (_passed, ()),
    "MeanBackward1": (_mean, ()),
    "SumBackward1": (_mean, ()),
    "SoftmaxBackward0": (_softmax, ("result",)),
    "SafeSoftmaxBackward0": (_softmax, ("result",)),
    "NativeDropoutBackward0": (_dropout, ("result1",)),
    "ScaledDotProductFlashAttentionForCpuBackward0": (attention, ("query", "key", "value", "output", "logsumexp")),
    "EmbeddingBackward0": (embedding, ("indices",)),
    "ConvolutionBackward0": (convolution, ("input", "weight")),
    "MaxPool2DWithIndicesBackward0": (max_pool, ("self", "result1")),
    "AdaptiveAvgPool2DBackward0": (adaptive_average_pool, ("self",)),
    "AvgPool2DBackward0": (average_pool, ("self",)),
    "NativeLayerNormBackward0": (layer_norm, ("input", "result1", "result2")),
    "NativeGroupNormBackward0": (group_norm, ("input", "result1", "result2")),
    "NativeBatchNormBackward0": (batch_norm, ("input", "result1", "result2")),
}


def is_known(node: Any) -> bool:
    """Whether a rule can be applied to the node: its saved tensors are dense, and hooks do not recompute them at every access."""
    if is_leaf(node):
        return True
    if type(node).__name__ not in RULES:
        return False
    for name in RULES[type(node).__name__][1]:
        one, other = (getattr(node, f"_saved_{name}", None) for _ in range(2))
        if one is None:
            continue
        if one.layout is not torch.strided or other is None or one.data_ptr() != other.data_ptr():
            return False
    return True


def input_cotangents(call: NodeBackward) -> InputCotangents:
    """The cotangents on every input that needs a gradient, in the shape and dtype of the input.

    Raises:
        NoRuleError: the rule does not cover these arguments.
        FailedRuleError: the rule raised another error.
    """
    name = type(call.node).__name__
    try:
        found = RULES[name][0](call)
        found += [None] * (len(call.needs_input_grad) - len(found))
        for index, needed in enumerate(call.needs_input_grad):
            cotangents = found[index]
            found[index] = _fitted(call, index, cotangents) if needed and cotangents is not None else None
    except NoRuleError:
        raise
    except Exception as error:
        raise FailedRuleError(f"the rule of {name}") from error
    return found


def _fitted(call: NodeBackward, index: int, found: Cotangents) -> Cotangents:
    """The sum over the dimensions in which the input was broadcast."""
    child, number = call.node.next_functions[index]
    metadata = child._input_metadata[number]
    values, samples, shape = found.values, found.sample_dim, list(metadata.shape)
    if samples is not None:
        moved = samples._replace(dim=samples.dim + len(shape) - (values.ndim - 1))
        size = samples.of_batch(values.shape[1:])[samples.dim]
        samples = moved if moved.dim >= 0 and shape[moved.dim] == size else None  # None: one row for all samples
        shape = shape if samples is None else samples.of_subset(shape)
    if list(values.shape[1:]) != shape:
        extra = values.ndim - 1 - len(shape)
        dims = [*range(1, 1 + extra)]
        dims += [1 + extra + dim for dim, size in enumerate(shape) if size == 1 and values.shape[1 + extra + dim] != 1]
        values = values.sum(dim=dims, keepdim=True).reshape(len(values), *shape)
    converted = values.to(metadata.dtype)
    return Cotangents(converted, samples, found.own or converted is not found.values)
