"""Metric of Kronecker factors, as in Shampoo and SOAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import Row, wide_dtype
from paretorch.core.option_checks import check_above, check_fraction, check_whole
from paretorch.linesearch.directions.metrics import Metric


class Kronecker(Metric):
    r"""Adam's diagonal in the eigenbasis of each weight matrix's Kronecker factors.

    .. math:: L \leftarrow \beta L + (1 - \beta) G G^T, \quad R \leftarrow \beta R + (1 - \beta) G^T G, \quad
              L = Q_L \Lambda_L Q_L^T, \quad R = Q_R \Lambda_R Q_R^T, \qquad
              M^{-1} G = Q_L \frac{Q_L^T G Q_R}{\sqrt{\hat v} + \epsilon} Q_R^T

    with v the moving mean of the squared entries of :math:`Q_L^T G Q_R`. M is symmetric and positive definite, so the minimum
    norm in it decreases every loss. Vectors, and sides longer than ``largest``, keep the original basis, with Adam's
    diagonal.

    Args:
        beta: of the factors.
        beta2: of v.
        eps: added to the root, relative to the root's mean.
        every: steps between two eigendecompositions.
        largest: longest side with a factor of its own.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> metric = Kronecker()
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> metric.learn([gradient])
        >>> bool((gradient * metric.inverse([gradient])[0]).sum() > 0)
        True

    References:
        Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024. They rotate the moving mean of the gradient, we
        the balanced gradient: momentum is not the gradient of a task, and a line search needs descent. When the basis
        changes, v is unchanged, as in their method.
    """

    def __init__(
        self, beta: float = 0.95, beta2: float = 0.95, eps: float = 1e-4, every: int = 10, largest: int = 1024
    ) -> None:
        for name, value in (("beta", beta), ("beta2", beta2)):
            check_fraction(f"Kronecker: {name}", value)
        check_above("Kronecker: eps", eps)
        check_whole("Kronecker: every", every, unit=" steps")
        check_whole("Kronecker: largest", largest, unit=" rows or columns")
        self.beta, self.beta2, self.eps, self.every, self.largest = beta, beta2, eps, every, largest
        self.steps = 0
        self.factors: dict[int, dict[str, Tensor]] = {}

    def learn(self, gradient: Row) -> None:
        """Updates factors and moments by the balanced gradient, and the basis every ``every`` steps."""
        fresh = self.steps % self.every == 0
        self.steps += 1
        for index, part in enumerate(gradient):
            if part is not None:
                self._learn(self.factors.setdefault(index, {}), part.detach(), fresh)

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient; the gradient where there are no factors."""
        return [
            part if part is None or index not in self.factors else self._inverse(self.factors[index], part)
            for index, part in enumerate(gradient)
        ]

    def snapshot(self) -> dict[str, Any]:
        """The state without a copy, since its tensors are replaced and never changed in place."""
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Factors, bases and moments by index of the parameter."""
        return {"taken": self.steps, "held": {index: dict(factors) for index, factors in self.factors.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them."""
        self.steps = int(state_dict["taken"])
        self.factors = {
            int(index): {name: tensor.clone() for name, tensor in factors.items()}
            for index, factors in state_dict["held"].items()
        }

    def _learn(self, factors: dict[str, Tensor], part: Tensor, fresh: bool) -> None:
        matrix = _matrix(part)
        for side, other in (("left", matrix), ("right", matrix.T)):
            if len(other) > self.largest or matrix.shape[1] == 1:
                continue
            product = other @ other.T
            factors[side] = product if side not in factors else factors[side].lerp(product, 1 - self.beta)
            if fresh:
                factors[f"{side} basis"] = (
                    torch.linalg.eigh(factors[side].to(wide_dtype(matrix))).eigenvectors.to(matrix.dtype).contiguous()
                )
        square = _rotated(factors, matrix).square()
        factors["second"] = (
            square * (1 - self.beta2) if "second" not in factors else factors["second"].lerp(square, 1 - self.beta2)
        )

    def _inverse(self, factors: Mapping[str, Tensor], part: Tensor) -> Tensor:
        root = (factors["second"] / (1 - self.beta2**self.steps)).sqrt()
        root = root + self.eps * root.mean() + torch.finfo(root.dtype).tiny ** 0.5
        return _rotated(factors, _rotated(factors, _matrix(part)) / root, back=True).reshape(part.shape)


def _matrix(part: Tensor) -> Tensor:
    """A parameter as a matrix of outputs by all other dimensions; a vector as a column."""
    return part.reshape(len(part), -1) if part.ndim > 1 else part.reshape(-1, 1)


def _rotated(factors: Mapping[str, Tensor], matrix: Tensor, back: bool = False) -> Tensor:
    """The matrix in the eigenbasis of the factors, or back."""
    left, right = factors.get("left basis"), factors.get("right basis")
    if left is not None:
        matrix = (left if back else left.T) @ matrix
    if right is not None:
        matrix = matrix @ (right.T if back else right)
    return matrix
