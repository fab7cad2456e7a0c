"""Rules for layers with parameters and for pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from paretorch.core.multi_vjp.convolutions import input_gradients, weight_gradients
from paretorch.core.multi_vjp.node_backward import Cotangents, InputCotangents, NodeBackward, Rule, signed
from paretorch.core.multi_vjp.rule_errors import NoRuleError

ATEN = torch.ops.aten


def linear(added: bool) -> Rule:
    """Products of (R, n) and (n, m) for (k, R, m) cotangents; ``added``: plus a third tensor."""

    def rule(call: NodeBackward) -> InputCotangents:
        first, second = ("mat1", "mat2") if added else ("self", "mat2")
        offset = int(added)
        found: InputCotangents = [None] * (2 + offset)
        call.require_samples_first()
        if added and (call.saved("alpha") != 1 or call.saved("beta") != 1):
            raise NoRuleError("a product with factors")
        if added and call.needs_input_grad[0]:
            found[0] = call.cotangents._replace(own=False)
        if call.needs_input_grad[offset]:
            k, rows, m = call.values.shape
            flat = call.values.reshape(k * rows, m) @ call.saved(second).T
            found[offset] = call.result(flat.view(k, rows, -1))
        if call.needs_input_grad[1 + offset]:
            # in the memory layout of the weight, whose transpose is the second factor
            gradients = call.values.transpose(1, 2) @ call.saved_tensor(first)
            found[1 + offset] = Cotangents(gradients.transpose(1, 2), own=True)
        return found

    return rule


def convolution(call: NodeBackward) -> InputCotangents:
    """Convolutions in one, two or three dimensions, also transposed or grouped."""
    node, values = call.node, call.values
    images, weight, bias = call.needs_input_grad
    call.require_samples_first()
    found: InputCotangents = [None, None, None]
    if images:
        found[0] = call.result(input_gradients(node, values))
    if weight:
        saved = call.saved_tensor("input")
        found[1] = Cotangents(weight_gradients(node, values, saved), own=True)
    if bias:
        others = [dim for dim in range(1, values.ndim) if dim != 2]
        found[2] = Cotangents(values.sum(dim=others), own=True)
    return found


def max_pool(call: NodeBackward) -> InputCotangents:
    """Max pooling."""
    call.require_independent(call.values.ndim - 3, call.values.ndim - 2)
    inputs, indices = call.saved_tensor("self"), call.saved_tensor("result1")
    sizes = [call.saved(name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
    back = ATEN.max_pool2d_with_indices_backward
    return call.one_input(torch.stack([back(part, inputs, *sizes, indices) for part in call.values]))


def average_pool(call: NodeBackward) -> InputCotangents:
    """Average pooling."""
    call.require_independent(call.values.ndim - 3, call.values.ndim - 2)
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    inputs, sizes = call.saved_tensor("self"), [call.saved(name) for name in names]
    return call.one_input(torch.stack([ATEN.avg_pool2d_backward(part, inputs, *sizes) for part in call.values]))


def adaptive_average_pool(call: NodeBackward) -> InputCotangents:
    """Average pooling to a given size."""
    call.require_independent(call.values.ndim - 3, call.values.ndim - 2)
    inputs = call.saved_tensor("self")
    return call.one_input(torch.stack([ATEN._adaptive_avg_pool2d_backward(part, inputs) for part in call.values]))


def _norm(call: NodeBackward, derivative: Callable[[Tensor], Sequence[Tensor | None]]) -> InputCotangents:
    """Normalization layers with a weight and a bias, one task after the other."""
    columns = list(zip(*(derivative(part.contiguous()) for part in call.values), strict=True))
    stacks = [
        torch.stack(column) if needed else None for column, needed in zip(columns, call.needs_input_grad, strict=True)
    ]
    return [
        None if stack is None else call.result(stack) if index == 0 else Cotangents(stack, own=True)
        for index, stack in enumerate(stacks)
    ]


def layer_norm(call: NodeBackward) -> InputCotangents:
    """Layer normalization; it needs the whole batch if the batch dimension is normalized too."""
    inputs, shape = call.saved_tensor("input"), call.saved("normalized_shape")
    call.require_independent(*range(inputs.ndim - len(shape), inputs.ndim))
    moments, weight, bias = (
        (call.saved_tensor("result1"), call.saved_tensor("result2")),
        call.saved("weight"),
        call.saved("bias"),
    )
    needed = list(call.needs_input_grad)
    return _norm(
        call, lambda part: ATEN.native_layer_norm_backward(part, inputs, shape, *moments, weight, bias, needed)
    )


def group_norm(call: NodeBackward) -> InputCotangents:
    """Group normalization, for each sample separately."""
    call.require_samples_first()
    inputs, needed = call.saved_tensor("input"), list(call.needs_input_grad)
    mean, deviation = (call.rows(call.saved(name)) for name in ("result1", "result2"))
    sizes = (len(inputs), *(call.saved(name) for name in ("C", "HxW", "group")))
    weight = call.saved("weight")
    return _norm(
        call, lambda part: ATEN.native_group_norm_backward(part, inputs, mean, deviation, weight, *sizes, needed)
    )


def batch_norm(call: NodeBackward) -> InputCotangents:
    """Batch normalization; in training mode it needs the whole batch."""
    training = call.saved("training")
    call.require_independent(*([0, *range(2, call.values.ndim - 1)] if training else []), 1)
    inputs = call.saved_tensor("input")
    names = ("weight", "running_mean", "running_var", "result1", "result2")
    numbers, eps, needed = [call.saved(name) for name in names], call.saved("eps"), list(call.needs_input_grad)
    back = ATEN.native_batch_norm_backward
    return _norm(call, lambda part: back(part, inputs, *numbers, training, eps, needed))


def attention(call: NodeBackward) -> InputCotangents:
    """Scaled dot product attention in one node, as on CPUs, for each sample separately: one task after the other."""
    call.require_samples_first()
    names = ("query", "key", "value", "output", "logsumexp")
    saved = [call.rows(call.saved(name)) for name in names]
    options = {
        "attn_mask": None if call.saved("attn_mask") is None else call.saved_tensor("attn_mask"),
        "scale": call.saved("scale"),
    }
    numbers = call.saved("dropout_p"), call.saved("is_causal")
    back = ATEN._scaled_dot_product_flash_attention_for_cpu_backward
    columns = zip(*(back(part, *saved, *numbers, **options) for part in call.values), strict=True)
    return [call.result(torch.stack(column)) for column in columns]


def embedding(call: NodeBackward) -> InputCotangents:
    """Rows of a table: sums over the entries with the same index, one task after the other."""
    index = call.saved("indices")
    call.require_independent(*range(index.ndim, call.values.ndim - 1))
    index = call.rows(index)
    if call.saved("scale_grad_by_freq") or call.saved("sparse"):
        raise NoRuleError("an embedding with scaled or sparse gradients")
    rows, padding = call.saved("weight_sym_argsize_0"), signed(call.saved("padding_idx"))
    back = ATEN.embedding_dense_backward
    return [Cotangents(torch.stack([back(part, index, rows, padding, False) for part in call.values]), own=True)]
