"""Metric of orthogonalised directions, as in Muon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import Row, wide_dtype
from paretorch.core.option_checks import check_fraction
from paretorch.linesearch.directions.metrics import Metric


class Orthogonal(Metric):
    r"""Every weight matrix moves along the orthogonal factor of the balanced gradient, all its singular values alike.

    .. math:: M^{-1} G = (\bar G \bar G^T)^{-1/2} G \qquad \text{so that} \qquad M^{-1} \bar G = U V^T
              \quad \text{for} \quad \bar G = U \Sigma V^T

    with the factor on the smaller side of the matrix; convolution kernels are matrices of outputs by all other dimensions, and a
    vector is only normalized. :math:`\bar G` is the balanced gradient of this step; there is no memory of earlier steps.

    Args:
        eps: singular values are at least this part of the largest, so that M is positive definite for the gradients of the
            single tasks.

    Raises:
        ValueError: ``eps`` is not in (0, 1).

    Example:
        >>> metric = Orthogonal()
        >>> gradient = torch.tensor([[0.0, 3.0], [0.5, 0.0]])
        >>> metric.learn([gradient])
        >>> metric.inverse([gradient])[0].round(decimals=4)
        tensor([[0., 1.],
                [1., 0.]])

    References:
        Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. They orthogonalise a momentum, by
        iterations to about 0.3 of the singular values; we the balanced gradient, by eigenvalues: a line search needs descent.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        check_fraction("Orthogonal: eps, a part of the largest singular value,", eps, "()")
        self.eps = eps
        self.factors: dict[int, Tensor] = {}

    def learn(self, gradient: Row) -> None:
        """Computes the factors of the balanced gradient."""
        self.factors = {}
        for index, part in enumerate(gradient):
            if part is None or not part.any():
                continue
            matrix, _ = _as_wide_matrix(part.detach())
            values, vectors = torch.linalg.eigh((matrix @ matrix.T).to(wide_dtype(matrix)))
            roots = torch.maximum(values, values[-1] * self.eps**2).sqrt()
            self.factors[index] = ((vectors / roots) @ vectors.T).to(part.dtype)

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient; the gradient where there is no factor."""
        return [
            part if part is None or index not in self.factors else self._inverse(self.factors[index], part)
            for index, part in enumerate(gradient)
        ]

    def snapshot(self) -> dict[str, Any]:
        """The state without a copy, since its tensors are replaced and never changed in place."""
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The factors of the last step, by index of the parameter."""
        return {"factors": dict(self.factors)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them."""
        self.factors = {int(index): factor.clone() for index, factor in state_dict["factors"].items()}

    @staticmethod
    def _inverse(factor: Tensor, part: Tensor) -> Tensor:
        matrix, transposed = _as_wide_matrix(part)
        moved = factor @ matrix
        return (moved.T if transposed else moved).reshape(part.shape)


def _as_wide_matrix(part: Tensor) -> tuple[Tensor, bool]:
    """A parameter as a matrix with at most as many rows as columns, and whether it is transposed; a vector is one row."""
    matrix = part.reshape(len(part), -1) if part.ndim > 1 else part.reshape(1, -1)
    transposed = matrix.shape[0] > matrix.shape[1]
    return (matrix.T if transposed else matrix), transposed
