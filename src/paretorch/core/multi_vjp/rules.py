"""What autograd's nodes make of the cotangents of many tasks at once, for all samples of a batch or for some.

Autograd runs one cotangent at a time, for all rows that its nodes keep, and keeps every result until the last. These rules
compute the same for k cotangents in one operation, and let go of each as soon as it has been used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.graph import is_leaf
from paretorch.core.multi_vjp.layer_rules import (
    average_pool,
    batch_norm,
    convolution,
    group_norm,
    layer_norm,
    linear,
    pool,
)
from paretorch.core.multi_vjp.node_backward import Cotangents, Found, Rule, Step
from paretorch.core.multi_vjp.samples import NoRuleError

ATEN = torch.ops.aten


def _pointwise(name: str, backward: Callable[[Step, Tensor], Tensor]) -> tuple[Rule, tuple[str, ...]]:
    return lambda step: step.same(backward(step, step.kept(name))), (name,)


def _gelu_slope(step: Step, x: Tensor) -> Tensor:
    """Its backward does not broadcast in every library that torch calls."""
    slope: Tensor = ATEN.gelu_backward(torch.ones_like(x), x, approximate=step.number("approximate"))
    return slope


def _relu(step: Step) -> Found:
    result = step.kept("result")
    if step.given.own:
        ATEN.threshold_backward.grad_input(step.values, result, 0, grad_input=step.values)
        return step.same(step.values)
    return step.same(ATEN.threshold_backward(step.values, result, 0))


def _reshaped(step: Step) -> Found:
    shape = list(step.shape(0))
    if step.rows is not None and step.given.by_row:
        if not shape:
            raise NoRuleError("a single number")
        shape[0] = step.rows.group(shape[0]) * step.rows.count
    return step.same(step.values.reshape(len(step.values), *shape), step.given.own)


def _passed(step: Step) -> Found:
    return step.same(step.values, step.given.own)


def _t(step: Step) -> Found:
    step.whole()
    return step.same(step.values.transpose(-1, -2) if step.values.ndim > 2 else step.values, own=False)


def _transpose(step: Step) -> Found:
    one, other = (step.dim(step.number(f"dim{place}")) for place in (0, 1))
    return step.same(step.values.transpose(one, other), own=False)


def _permute(step: Step) -> Found:
    size = step.values.ndim - 1
    dims = [(dim - 2**64 if dim >= 2**63 else dim) % size for dim in step.number("dims")]
    if dims[0] != 0:
        step.whole()
    back = sorted(range(size), key=dims.__getitem__)
    return step.same(step.values.permute(0, *(dim + 1 for dim in back)), own=False)


def _sum(sign: int) -> Rule:
    def rule(step: Step) -> Found:
        factor = sign * step.number("alpha")
        second = step.values if factor == 1 else step.values * factor
        return [step.given._replace(values=values, own=False) for values in (step.values, second)]

    return rule


def _product(step: Step) -> Found:
    return [
        step.given._replace(values=step.values * step.kept(other), own=True) if wanted else None
        for wanted, other in zip(step.wanted, ("other", "self"), strict=True)
    ]


def _quotient(step: Step) -> Found:
    divisor = step.kept("other")
    found: Found = [step.given._replace(values=step.values / divisor, own=True), None]
    if step.wanted[1]:
        slope = -step.kept("self") / divisor.square()
        found[1] = step.given._replace(values=step.values * slope, own=True)
    return found


def _mean(step: Step) -> Found:
    """Also of sums, over some dimensions."""
    shape = step.number("self_sym_sizes")
    dims = sorted((dim - 2**64 if dim >= 2**63 else dim) % len(shape) for dim in step.number("dim"))
    if 0 in dims or not dims:
        step.whole()
    dims = dims or list(range(len(shape)))
    values, full = step.values, list(shape)
    if not step.number("keepdim"):
        for dim in dims:
            values = values.unsqueeze(dim + 1)
    full[0] = values.shape[1] if 0 not in dims else full[0]
    if type(step.node).__name__.startswith("Mean"):
        values = values / torch.Size(shape[dim] for dim in dims).numel()
    return step.same(values.expand(len(values), *full), own=False)


def _softmax(step: Step) -> Found:
    dim, result = step.dim(step.number("dim")), step.kept("result")
    inner = step.values * result
    return step.same(inner - result * inner.sum(dim, keepdim=True))


def _batched_product(step: Step) -> Found:
    """Products of (b, n, m) and (b, m, p), as (k, b, n, p) cotangents see them."""
    found: Found = [None, None]
    if step.wanted[0]:
        found[0] = step.given._replace(values=step.values @ step.kept("mat2").transpose(-1, -2), own=True)
    if step.wanted[1]:
        found[1] = step.given._replace(values=step.kept("self").transpose(-1, -2) @ step.values, own=True)
    return found


def _cat(step: Step) -> Found:
    dim = step.dim(step.number("dim"))
    first, found = 0, list[Cotangents | None]()
    for place, wanted in enumerate(step.wanted):
        shape = step.shape(place)
        size = 0 if len(shape) == 1 and shape[0] == 0 else shape[dim - 1]  # an empty tensor joins any others
        found.append(
            step.given._replace(values=step.values.narrow(dim, first, size), own=False) if wanted and size else None
        )
        first += size
    return found


def _into_zeros(step: Step, dim: int, place: slice | int) -> Found:
    """The cotangents in their place in the input, zero elsewhere."""
    shape = list(step.shape(0))
    shape[0] = shape[0] if dim == 1 else step.values.shape[1]
    full = step.values.new_zeros(len(step.values), *shape)
    full[(slice(None),) * dim + (place,)] = step.values
    return step.same(full)


def _slice(step: Step) -> Found:
    size = step.number("self_sym_sizes")
    dim = step.dim(step.number("dim"))
    names = ("start", "end", "step")
    start, end, stride = (value - 2**64 if value >= 2**63 else value for value in map(step.number, names))
    return _into_zeros(step, dim, slice(*slice(start, end, stride).indices(size[dim - 1])))


def _select(step: Step) -> Found:
    shape = step.number("self_sym_sizes")
    dim, index = ((value - 2**64 if value >= 2**63 else value) for value in (step.number("dim"), step.number("index")))
    dim %= len(shape)
    if dim == 0:
        step.whole()
    return _into_zeros(step, dim + 1, index)


def _elu(step: Step) -> Found:
    numbers = [step.number(name) for name in ("alpha", "scale", "input_scale")]
    return step.same(ATEN.elu_backward(step.values, *numbers, False, step.kept("self")))


def _dropout(step: Step) -> Found:
    kept = 1 - step.number("p")
    return step.same(step.values * step.kept("result1") * (1 / kept if kept > 0 else 0.0))


# By the name of autograd's node: its rule, and the tensors that it saves.
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "AddmmBackward0": (linear(added=True), ("mat1", "mat2")),
    "MmBackward0": (linear(added=False), ("self", "mat2")),
    "ReluBackward0": (_relu, ("result",)),
    "TanhBackward0": _pointwise("result", lambda step, y: ATEN.tanh_backward(step.values, y)),
    "SigmoidBackward0": _pointwise("result", lambda step, y: ATEN.sigmoid_backward(step.values, y)),
    "ExpBackward0": _pointwise("result", lambda step, y: step.values * y),
    "SinBackward0": _pointwise("self", lambda step, x: step.values * x.cos()),
    "CosBackward0": _pointwise("self", lambda step, x: step.values * -x.sin()),
    "SiluBackward0": _pointwise("self", lambda step, x: ATEN.silu_backward(step.values, x)),
    "GeluBackward0": _pointwise("self", lambda step, x: step.values * _gelu_slope(step, x)),
    "LeakyReluBackward0": _pointwise(
        "self", lambda step, x: ATEN.leaky_relu_backward(step.values, x, step.number("negative_slope"), False)
    ),
    "HardtanhBackward0": _pointwise(
        "self",
        lambda step, x: ATEN.hardtanh_backward(step.values, x, step.number("min_val"), step.number("max_val")),
    ),
    "SoftplusBackward0": _pointwise(
        "self",
        lambda step, x: ATEN.softplus_backward(step.values, x, step.number("beta"), step.number("threshold")),
    ),
    "EluBackward0": (_elu, ("self",)),
    "NegBackward0": (lambda step: step.same(-step.values), ()),
    "AddBackward0": (_sum(1), ()),
    "SubBackward0": (_sum(-1), ()),
    "MulBackward0": (_product, ("self", "other")),
    "DivBackward0": (_quotient, ("self", "other")),
    "BmmBackward0": (_batched_product, ("self", "mat2")),
    "CatBackward0": (_cat, ()),
    "SliceBackward0": (_slice, ()),
    "SelectBackward0": (_select, ()),
    "ViewBackward0": (_reshaped, ()),
    "UnsafeViewBackward0": (_reshaped, ()),
    "ReshapeAliasBackward0": (_reshaped, ()),
    "SqueezeBackward0": (_reshaped, ()),
    "SqueezeBackward1": (_reshaped, ()),
    "UnsqueezeBackward0": (_reshaped, ()),
    "TBackward0": (_t, ()),
    "TransposeBackward0": (_transpose, ()),
    "PermuteBackward0": (_permute, ()),
    "CloneBackward0": (_passed, ()),
    "ExpandBackward0": (_passed, ()),
    "ToCopyBackward0": (_passed, ()),
    "MeanBackward1": (_mean, ()),
    "SumBackward1": (_mean, ()),
    "SoftmaxBackward0": (_softmax, ("result",)),
    "NativeDropoutBackward0": (_dropout, ("result1",)),
    "ConvolutionBackward0": (convolution, ("input", "weight")),
    "MaxPool2DWithIndicesBackward0": (pool, ("self", "result1")),
    "AvgPool2DBackward0": (average_pool, ("self",)),
    "NativeLayerNormBackward0": (layer_norm, ("input", "result1", "result2")),
    "NativeGroupNormBackward0": (group_norm, ("input", "result1", "result2")),
    "NativeBatchNormBackward0": (batch_norm, ("input", "result1", "result2")),
}


def is_known(node: Any) -> bool:
    """Whether a rule can be applied to the node: what it saved is dense, and is not unpacked anew by every look."""
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


def inputs_of(step: Step) -> Found:
    """The cotangents on every input of a node that is wanted, in its shape and dtype."""
    found = RULES[type(step.node).__name__][0](step)
    found += [None] * (len(step.wanted) - len(found))
    for place, wanted in enumerate(step.wanted):
        cotangents = found[place]
        found[place] = _fitted(step, place, cotangents) if wanted and cotangents is not None else None
    return found


def _fitted(step: Step, place: int, found: Cotangents) -> Cotangents:
    """Summed over the dimensions in which the input was broadcast."""
    child, number = step.node.next_functions[place]
    about = child._input_metadata[number]
    values, by_row, shape = found.values, found.by_row, list(about.shape)
    if by_row and step.rows is not None:
        group = values.shape[1] // step.rows.count
        if len(shape) == values.ndim - 1 and shape[0] == group * step.rows.batch:
            shape[0] = values.shape[1]
        else:
            by_row = False  # one for all samples
    if list(values.shape[1:]) != shape:
        extra = values.ndim - 1 - len(shape)
        dims = [*range(1, 1 + extra)]
        dims += [1 + extra + dim for dim, size in enumerate(shape) if size == 1 and values.shape[1 + extra + dim] != 1]
        values = values.sum(dim=dims, keepdim=True).reshape(len(values), *shape)
    converted = values.to(about.dtype)
    return Cotangents(converted, by_row, found.own or converted is not found.values)
