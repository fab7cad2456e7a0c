"""Orthogonalised directions, as Muon's, in a metric that all tasks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.linesearch.directions.metrics import Metric, Row


class Orthogonal(Metric):
    r"""Every weight matrix moves along the orthogonal factor of the balanced gradient, all its singular values alike.

    .. math:: M^{-1} G = (\bar G \bar G^T)^{-1/2} G \qquad \text{so that} \qquad M^{-1} \bar G = U V^T
              \quad \text{for} \quad \bar G = U \Sigma V^T

    with the factor on the smaller side of the matrix; kernels are matrices of outputs by all the rest, and of a vector only the
    length is divided out. :math:`\bar G` is the balanced gradient of this step, and nothing is kept from one step to the next.

    Args:
        eps: singular values below this part of the largest count as that part, so that M stays positive definite for the
            gradients of the single tasks.

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
        iterations to about 0.3 of the singular values; we the balanced gradient, by eigenvalues: a line search asks for descent.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        if not 0 < eps < 1:
            raise ValueError(f"Orthogonal: eps is a part of the largest singular value, in (0, 1), got {eps}")
        self.eps = eps
        self.factors: dict[int, Tensor] = {}

    def learn(self, gradient: Row) -> None:
        """Takes the factors from the balanced gradient."""
        self.factors = {}
        for place, part in enumerate(gradient):
            if part is None or not part.any():
                continue
            matrix, _ = _wide(part.detach())
            values, vectors = torch.linalg.eigh((matrix @ matrix.T).double())
            roots = values.clamp_min(float(values[-1]) * self.eps**2).sqrt()
            self.factors[place] = ((vectors / roots) @ vectors.T).to(part.dtype)

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient; the gradient itself where nothing was learned."""
        return [
            part if part is None or place not in self.factors else self._inverse(self.factors[place], part)
            for place, part in enumerate(gradient)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The factors of the last step, by place of the parameter."""
        return {"factors": dict(self.factors)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes them back."""
        self.factors = {int(place): factor.clone() for place, factor in state_dict["factors"].items()}

    @staticmethod
    def _inverse(factor: Tensor, part: Tensor) -> Tensor:
        matrix, turned = _wide(part)
        moved = factor @ matrix
        return (moved.T if turned else moved).reshape(part.shape)


def _wide(part: Tensor) -> tuple[Tensor, bool]:
    """A parameter as a matrix with no more rows than columns, and whether it was turned for that; vectors as one row."""
    matrix = part.reshape(len(part), -1) if part.ndim > 1 else part.reshape(1, -1)
    turned = matrix.shape[0] > matrix.shape[1]
    return (matrix.T if turned else matrix), turned
