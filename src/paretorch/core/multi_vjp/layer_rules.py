"""What autograd's nodes of layers with parameters, and of pooling, make of the cotangents of many tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from paretorch.core.multi_vjp.convolutions import input_gradients, weight_gradients
from paretorch.core.multi_vjp.node_backward import Cotangents, Found, Rule, Step
from paretorch.core.multi_vjp.samples import NoRuleError

ATEN = torch.ops.aten


def linear(added: bool) -> Rule:
    """Products of (R, n) and (n, m), as (k, R, m) cotangents see them."""

    def rule(step: Step) -> Found:
        first, second = (f"mat{place}" for place in (1, 2)) if added else ("self", "mat2")
        offset = int(added)
        found: Found = [None] * (2 + offset)
        if added and (step.number("alpha") != 1 or step.number("beta") != 1):
            raise NoRuleError("a product with factors")
        if added and step.wanted[0]:
            found[0] = step.given._replace(own=False)
        if step.wanted[offset]:
            k, rows, m = step.values.shape
            flat = step.values.reshape(k * rows, m) @ step.number(second).T
            found[offset] = Cotangents(flat.view(k, rows, -1), step.given.by_row, own=True)
        if step.wanted[1 + offset]:
            gradients = step.values.transpose(1, 2) @ step.kept(
                first
            )  # as the weight lies, of which this is transposed
            found[1 + offset] = Cotangents(gradients.transpose(1, 2), by_row=False, own=True)
        return found

    return rule


def convolution(step: Step) -> Found:
    """Of one, two or three dimensions, also transposed or in groups."""
    node, values = step.node, step.values
    images, weight, bias = step.wanted
    found: Found = [None, None, None]
    if images:
        found[0] = step.given._replace(values=input_gradients(node, values), own=True)
    if weight:
        saved = step.kept("input")
        found[1] = Cotangents(weight_gradients(node, values, saved), by_row=False, own=True)
    if bias:
        beside = [dim for dim in range(1, values.ndim) if dim != 2]
        found[2] = Cotangents(values.sum(dim=beside), by_row=False, own=True)
    return found


def pool(step: Step) -> Found:
    """The largest entry of every window."""
    inputs, indices = step.kept("self"), step.kept("result1")
    sizes = [step.number(name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
    back = ATEN.max_pool2d_with_indices_backward
    return step.same(torch.stack([back(part, inputs, *sizes, indices) for part in step.values]))


def average_pool(step: Step) -> Found:
    """The mean of every window."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    inputs, sizes = step.kept("self"), [step.number(name) for name in names]
    return step.same(torch.stack([ATEN.avg_pool2d_backward(part, inputs, *sizes) for part in step.values]))


def _norm(step: Step, backward: Callable[[Tensor], Sequence[Tensor | None]]) -> Found:
    """Layers with a weight and a bias of their own, one task after the other."""
    columns = list(zip(*(backward(part.contiguous()) for part in step.values), strict=True))
    stacks = [torch.stack(column) if wanted else None for column, wanted in zip(columns, step.wanted, strict=True)]
    return [
        None if stack is None else Cotangents(stack, step.given.by_row and place == 0, own=True)
        for place, stack in enumerate(stacks)
    ]


def layer_norm(step: Step) -> Found:
    """Each sample by itself, unless the batch belongs to what is normalized."""
    inputs, shape = step.kept("input"), step.number("normalized_shape")
    if len(shape) == inputs.ndim:
        step.whole()
    moments, weight, bias = (step.kept("result1"), step.kept("result2")), step.number("weight"), step.number("bias")
    wanted = list(step.wanted)
    return _norm(
        step, lambda part: ATEN.native_layer_norm_backward(part, inputs, shape, *moments, weight, bias, wanted)
    )


def group_norm(step: Step) -> Found:
    """Each sample by itself."""
    inputs, wanted = step.kept("input"), list(step.wanted)
    mean, deviation = step.number("result1"), step.number("result2")
    if step.rows is not None and step.given.by_row:
        mean, deviation = step.rows.of(mean), step.rows.of(deviation)
    sizes = (len(inputs), *(step.number(name) for name in ("C", "HxW", "group")))
    weight = step.number("weight")
    return _norm(
        step, lambda part: ATEN.native_group_norm_backward(part, inputs, mean, deviation, weight, *sizes, wanted)
    )


def batch_norm(step: Step) -> Found:
    """With its running moments each sample by itself; in training mode all of them together."""
    training = step.number("training")
    if training:
        step.whole()
    inputs = step.kept("input")
    names = ("weight", "running_mean", "running_var", "result1", "result2")
    numbers, eps, wanted = [step.number(name) for name in names], step.number("eps"), list(step.wanted)
    back = ATEN.native_batch_norm_backward
    return _norm(step, lambda part: back(part, inputs, *numbers, training, eps, wanted))
