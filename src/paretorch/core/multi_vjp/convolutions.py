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
    """(k, R, n, ...) of (k, R, m, ...) cotangents: a convolution by the same weight in the other direction, of k R images."""
    weight = node._saved_weight
    k, rows = cotangents.shape[:2]
    images = cotangents.flatten(0, 1)
    # one number stands for all dimensions
    stride, padding, dilation = (
        _of_each_dimension(value, weight.ndim - 2)
        for value in (node._saved_stride, node._saved_padding, node._saved_dilation)
    )
    groups = node._saved_groups
    if node._saved_transposed:
        found = CONVOLUTIONS[weight.ndim](images, weight, None, stride, padding, dilation, groups)
        whole = node._saved_input.shape[2:]
        # output padding of a stride or more leaves room for further places, which no input has
        for dim, size in enumerate(whole, start=2):
            found = found.narrow(dim, 0, size)
    else:
        whole = node._saved_input.shape[2:]
        reached = [
            (size - 1) * s - 2 * p + d * (kernel - 1) + 1
            for size, s, p, d, kernel in zip(images.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
        ]
        beyond = [size - end for size, end in zip(whole, reached, strict=True)]
        found = TRANSPOSED[weight.ndim](images, weight, None, stride, padding, beyond, groups, dilation)
    return found.reshape(k, rows, *found.shape[1:])


def _of_each_dimension(value: Sequence[int], dimensions: int) -> list[int]:
    return list(value) * dimensions if len(value) == 1 else list(value)


def weight_gradients(node: Any, cotangents: Tensor, inputs: Tensor) -> Tensor:
    """(k, *weight) of (k, R, m, ...) cotangents and the (R, n, ...) inputs."""
    arguments = (
        None, node._saved_stride, node._saved_padding, node._saved_dilation, node._saved_transposed,
        node._saved_output_padding, node._saved_groups, [False, True, False],
    )  # fmt: skip
    back = torch.ops.aten.convolution_backward
    return torch.stack([back(part, inputs, node._saved_weight, *arguments)[1] for part in cotangents])
