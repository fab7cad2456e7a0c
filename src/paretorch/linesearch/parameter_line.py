"""Parameters at a step along a direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.linesearch.contract import SearchOutcome, SearchResult
from paretorch.linesearch.tensor_rows import inner_products


class ParameterLine:
    """Sets parameters to ``origin - step * direction``, where ``origin`` is their value at construction.

    Args:
        parameters: k leaves.
        direction: k tensors of the same shapes; None leaves that parameter unchanged.
    """

    def __init__(self, parameters: Sequence[Tensor], direction: Sequence[Tensor | None]) -> None:
        pairs = [(leaf, part) for leaf, part in zip(parameters, direction, strict=True) if part is not None]
        self.parameters = [leaf for leaf, _ in pairs]
        self.direction = [part for _, part in pairs]
        self.origin = [leaf.detach().clone() for leaf in self.parameters]

    @torch.no_grad()
    def move_to(self, step: float) -> None:
        """Sets the parameters to their values at a step; 0 restores them exactly."""
        if self.parameters:
            values = self.origin if step == 0 else torch._foreach_add(self.origin, self.direction, alpha=-step)
            torch._foreach_copy_(self.parameters, list(values))


def stationarity(lines: Sequence[ParameterLine], step: float) -> float:
    r"""SASA+'s :math:`\eta \langle \theta, d \rangle - \frac{\eta^2}{2} \lVert d \rVert^2`, with theta before the step."""
    product = sum(inner_products([line.origin], line.direction)[0] for line in lines)
    square = sum(inner_products([line.direction], line.direction)[0] for line in lines)
    return step * product - step**2 / 2 * square


def smallest_step(lines: Sequence[ParameterLine]) -> float:
    r"""The step at or below which rounding leaves every parameter unchanged.

    .. math:: \min_l \frac{\epsilon \lVert \theta_l \rVert}{2 \lVert d_l \rVert}
    """
    pairs = [pair for line in lines for pair in zip(line.origin, line.direction, strict=True)]
    if not pairs:
        return 0.0
    leaves, parts = ([pair[place] for pair in pairs] for place in (0, 1))
    norms = torch.stack([*torch._foreach_norm(leaves), *torch._foreach_norm(parts)]).tolist()
    sizes, lengths = norms[: len(pairs)], norms[len(pairs) :]
    steps = [
        torch.finfo(leaf.dtype).eps / 2 * size / length
        for (leaf, _), size, length in zip(pairs, sizes, lengths, strict=True)
        if length > 0
    ]
    return min(steps, default=0.0)


def refuse_unresolved(result: SearchResult, lines: Sequence[ParameterLine]) -> SearchResult:
    """The result; noise where the accepted step is too short to change any parameter."""
    if not result.accepted or result.step > (smallest := smallest_step(lines)):
        return result
    return SearchResult(SearchOutcome.NOISE, 0.0, result.losses, result.trials, worst=result.worst, smallest=smallest)
