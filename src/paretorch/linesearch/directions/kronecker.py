"""A metric of Kronecker factors, as in Shampoo and SOAP, shared by all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paretorch.linesearch.directions.metrics import Metric, Row


class Kronecker(Metric):
    r"""Adam's diagonal in the eigenbasis of each weight matrix's Kronecker factors.

    .. math:: L \leftarrow \beta L + (1 - \beta) G G^T, \quad R \leftarrow \beta R + (1 - \beta) G^T G, \quad
              L = Q_L \Lambda_L Q_L^T, \quad R = Q_R \Lambda_R Q_R^T, \qquad
              M^{-1} G = Q_L \frac{Q_L^T G Q_R}{\sqrt{\hat v} + \epsilon} Q_R^T

    with v the moving mean of the squared entries of :math:`Q_L^T G Q_R`. M is symmetric and positive definite, so the minimum
    norm in it lowers every task. Vectors, and sides longer than ``largest``, keep the plain basis: there it is Adam's diagonal.

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
        the balanced gradient: momentum would be no gradient of a task, and a line search asks for descent. When the basis turns,
        v is kept as it is, as they keep it.
    """

    def __init__(
        self, beta: float = 0.95, beta2: float = 0.95, eps: float = 1e-4, every: int = 10, largest: int = 1024
    ) -> None:
        for name, value in (("beta", beta), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"Kronecker: {name} is in [0, 1), got {value}")
        if not eps > 0 or every < 1 or largest < 1:
            raise ValueError(f"Kronecker: eps > 0, every >= 1, largest >= 1, got {eps}, {every}, {largest}")
        self.beta, self.beta2, self.eps, self.every, self.largest = beta, beta2, eps, every, largest
        self.taken = 0
        self.held: dict[int, dict[str, Tensor]] = {}

    def learn(self, gradient: Row) -> None:
        """Takes in the balanced gradient; the basis is made anew every ``every`` steps."""
        fresh = self.taken % self.every == 0
        self.taken += 1
        for place, part in enumerate(gradient):
            if part is not None:
                self._learn(self.held.setdefault(place, {}), part.detach(), fresh)

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient; the gradient itself where nothing was learned yet."""
        return [
            part if part is None or place not in self.held else self._inverse(self.held[place], part)
            for place, part in enumerate(gradient)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Factors, bases and moments by place of the parameter."""
        return {"taken": self.taken, "held": {place: dict(held) for place, held in self.held.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes them back."""
        self.taken = int(state_dict["taken"])
        self.held = {
            int(place): {name: tensor.clone() for name, tensor in held.items()}
            for place, held in state_dict["held"].items()
        }

    def _learn(self, held: dict[str, Tensor], part: Tensor, fresh: bool) -> None:
        matrix = _matrix(part)
        for side, other in (("left", matrix), ("right", matrix.T)):
            if len(other) > self.largest or matrix.shape[1] == 1:
                continue
            product = other @ other.T
            held[side] = product if side not in held else held[side].lerp(product, 1 - self.beta)
            if fresh:
                held[f"{side} basis"] = (
                    torch.linalg.eigh(held[side].double()).eigenvectors.to(matrix.dtype).contiguous()
                )
        square = _rotated(held, matrix).square()
        held["second"] = (
            square * (1 - self.beta2) if "second" not in held else held["second"].lerp(square, 1 - self.beta2)
        )

    def _inverse(self, held: Mapping[str, Tensor], part: Tensor) -> Tensor:
        root = (held["second"] / (1 - self.beta2**self.taken)).sqrt()
        root = root + self.eps * root.mean() + torch.finfo(root.dtype).tiny ** 0.5
        return _rotated(held, _rotated(held, _matrix(part)) / root, back=True).reshape(part.shape)


def _matrix(part: Tensor) -> Tensor:
    """A parameter as a matrix: outputs by all the rest; vectors as a column."""
    return part.reshape(len(part), -1) if part.ndim > 1 else part.reshape(-1, 1)


def _rotated(held: Mapping[str, Tensor], matrix: Tensor, back: bool = False) -> Tensor:
    """Into the eigenbasis of the factors, or back."""
    left, right = held.get("left basis"), held.get("right basis")
    if left is not None:
        matrix = (left if back else left.T) @ matrix
    if right is not None:
        matrix = matrix @ (right.T if back else right)
    return matrix
