"""Parameters that are moved along a direction, always from where they stood; and inner products of lists of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from paretorch.linesearch.contract import Found, Outcome


class Moving:
    """Parameters at ``origin - step * direction``.

    Args:
        parameters: k leaves.
        direction: k tensors like them; None moves nothing of that leaf.
    """

    def __init__(self, parameters: Sequence[Tensor], direction: Sequence[Tensor | None]) -> None:
        pairs = [(leaf, part) for leaf, part in zip(parameters, direction, strict=True) if part is not None]
        self.parameters = [leaf for leaf, _ in pairs]
        self.direction = [part for _, part in pairs]
        self.origin = [leaf.detach().clone() for leaf in self.parameters]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within it an exception leaves the parameters where they stood."""
        try:
            yield
        except BaseException:
            self.to(0)
            raise

    @torch.no_grad()
    def to(self, step: float) -> None:
        """Moves them there; 0 puts them back exactly."""
        if self.parameters:
            there = self.origin if step == 0 else torch._foreach_add(self.origin, self.direction, alpha=-step)
            torch._foreach_copy_(self.parameters, list(there))


def inners(rows: Sequence[Sequence[Tensor | None]], direction: Sequence[Tensor | None]) -> list[float]:
    """(T,) inner products of rows with a direction, leaf by leaf, with one transfer from the device; None is zero."""
    products: list[Tensor] = []
    counts: list[int] = []
    for row in rows:
        pairs = [(a, b) for a, b in zip(row, direction, strict=True) if a is not None and b is not None]
        counts.append(len(pairs))
        products += [torch.dot(a.detach().reshape(-1), b.detach().reshape(-1)) for a, b in pairs]
    if not products:
        return [0.0] * len(rows)
    values = iter(torch.stack(products).tolist())
    return [math.fsum(next(values) for _ in range(count)) for count in counts]


def stationarity(movings: Sequence[Moving], step: float) -> float:
    r"""SASA+'s :math:`\eta \langle \theta, d \rangle - \frac{\eta^2}{2} \lVert d \rVert^2`, with theta before the step."""
    along = sum(inners([moving.origin], moving.direction)[0] for moving in movings)
    square = sum(inners([moving.direction], moving.direction)[0] for moving in movings)
    return step * along - step**2 / 2 * square


def shortest(movings: Sequence[Moving]) -> float:
    r"""The step below which all parameters round to where they are: that of the leaf with the longest direction for its length.

    .. math:: \min_l \frac{\epsilon \lVert \theta_l \rVert}{2 \lVert d_l \rVert}
    """
    pairs = [pair for moving in movings for pair in zip(moving.origin, moving.direction, strict=True)]
    if not pairs:
        return 0.0
    sizes = torch.stack(torch._foreach_norm([leaf for leaf, _ in pairs])).tolist()
    ways = torch.stack(torch._foreach_norm([part for _, part in pairs])).tolist()
    steps = [
        torch.finfo(leaf.dtype).eps / 2 * size / way
        for (leaf, _), size, way in zip(pairs, sizes, ways, strict=True)
        if way > 0
    ]
    return min(steps, default=0.0)


def resolved(found: Found, movings: Sequence[Moving]) -> Found:
    """What was found; noise where it is accepted and too short to move any parameter, as these are rounded."""
    if found.outcome is not Outcome.ACCEPTED or found.step > (least := shortest(movings)):
        return found
    return Found(Outcome.NOISE, 0.0, found.losses, found.trials, worst=found.worst, least=least)


def length(tensors: Sequence[Tensor | None]) -> float:
    """The Euclidean length of a list of tensors."""
    return math.sqrt(inners([tensors], tensors)[0])


def filled(parts: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """The parts, with zeros where there is none."""
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(parts, like, strict=True)]
