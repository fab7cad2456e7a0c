"""Gradients of a convolution for the cotangents of many tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
TRANSPOSED = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d, 5: functional.conv_transpose3d}


def input_gradients(node: Any, cotangents: Tensor) -> Tensor:
    """(k, R, n, ...) from (k, R, m, ...) cotangents: the transposed convolution of k R images with the same weight."""
    weight = node._saved_weight
    k, rows = cotangents.shape[:2]
    images = cotangents.flatten(0, 1)
    # one number applies to all dimensions
    stride, padding, dilation = (
        _of_each_dimension(value, weight.ndim - 2)
        for value in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    groups = node._saved_groups
    input_sizes = node._saved_input.shape[2:]
    if node._saved_transposed:
        found = CONVOLUTIONS[weight.ndim](images, weight, None, stride, padding, dilation, groups)
        # output padding of a stride or more adds positions that the input does not have
        for dim, size in enumerate(input_sizes, start=2):
            found = found.narrow(dim, 0, size)
    else:
        reached = [
            (size - 1) * s - 2 * p + d * (kernel - 1) + 1
            for size, s, p, d, kernel in zip(images.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
        ]
        output_padding = [size - end for size, end in zip(input_sizes, reached, strict=True)]
        found = TRANSPOSED[weight.ndim](images, weight, None, stride, padding, output_padding, groups, dilation)
    return found.reshape(k, rows, *found.shape[1:])


def _of_each_dimension(value: Sequence[int], dimensions: int) -> list[int]:
    return list(value) * dimensions if len(value) == 1 else list(value)


def weight_gradients(node: Any, cotangents: Tensor, inputs: Tensor) -> Tensor:
    """(k, *weight) from (k, R, m, ...) cotangents and the (R, n, ...) inputs."""
    arguments = (
        None, node._saved_stride, node._saved_padding, node._saved_dilation, node._saved_transposed,
        node._saved_output_padding, node._saved_groups, [False, True, False],
    )  # fmt: skip
    convolution_backward = torch.ops.aten.convolution_backward
    return torch.stack([convolution_backward(part, inputs, node._saved_weight, *arguments)[1] for part in cotangents])
