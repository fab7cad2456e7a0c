"""Updates against those of TorchJD 0.18 for two Jacobians: equal, or better where the public code is inaccurate.

The numbers are ``J^T w`` of its weightings (`MGDAWeighting(epsilon=1e-14, max_iters=100000)`,
`NashMTL(max_norm=0, optim_niter=200)`, `CAGradWeighting(c=0.5, norm_eps=0)`, defaults for all others).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import paretorch as pt
from matrices import answer

FOUR = torch.tensor(
    [[2, -1, 0.5, 0, 1], [-1, 3, 0, 1, -0.5], [0.5, 0.5, -2, 1, 0], [1, -2, 1, 2, 0.25]], dtype=torch.float64
)
THREE = torch.tensor([[1, 2, 0, 0.5], [0.5, -1, 1, 2], [-1.5, 0, 2, 1]], dtype=torch.float64)

EQUAL: list[tuple[pt.Method[Any], list[float], list[float]]] = [
    (
        pt.MGDA(),
        [0.685776632, 0.454385153, 0.016927858, 0.671714166, 0.282307302],
        [0.236923077, 0.721538462, 0.764615385, 1.012307692],
    ),
    (
        pt.IMTLG(),
        [0.612494934, 0.475023095, 0.14290148, 0.744256763, 0.246944941],
        [0.161822785, 0.689667104, 0.818185878, 1.012138356],
    ),
    (
        pt.NashMTL(),
        [1.068336712, 0.543115953, -0.153118975, 1.553151274, 0.357711411],
        [0.159006315, 0.634644581, 1.001672507, 1.252435803],
    ),
    (
        pt.FairGrad(),
        [0.848855869, 0.478065298, -0.080554524, 1.120131409, 0.303126769],
        [0.14807877, 0.516302807, 0.701483143, 0.895856997],
    ),
    (pt.DualProjection(), [0.625, 0.125, -0.125, 1.0, 0.1875], [0.0, 1 / 3, 1.0, 7 / 6]),
    (
        pt.ConFIG(),
        [2.407893499, 1.867452217, 0.561786758, 2.92588709, 0.970811488],
        [0.492814121, 2.10030799, 2.49169828, 3.082359974],
    ),
    (
        pt.SDMGrad(),
        [1.476710247, -0.946366676, 0.458760261, 0.642733352, 0.658013455],
        [0.384615385, -0.692307692, 1.0, 1.807692308],
    ),
]
# Theirs is divided by the number of tasks once more than the paper's.
ALIGNED = (
    [0.419582948, 0.204606678, -0.048716694, 0.56774215, 0.146140048],
    [0.090267081, 0.380017301, 0.622771751, 0.773727444],
)
# Theirs stops at the tolerance of its convex solver.
CAGRAD = (
    [0.944319259, 0.533118452, 0.011607589, 1.227111257, 0.347159624],
    [0.329251202, 1.002717561, 1.062573403, 1.406788566],
)
# Theirs adds 1e-4 of the trace to the Gramian before it projects, and conflicts with a task by that much.
UPGRAD = (
    [0.847249675, 0.541994879, 0.020565172, 1.318687923, 0.288294065],
    [0.030480563, 0.520138031, 1.092303858, 1.265825877],
)


def row(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("method", "four", "three"), EQUAL, ids=lambda part: repr(part) if isinstance(part, pt.Method) else ""
)
def test_method_equals_public_code(method: pt.Method[Any], four: list[float], three: list[float]) -> None:
    torch.testing.assert_close(answer(method, FOUR)[1], row(four), atol=1e-6, rtol=0)
    torch.testing.assert_close(answer(method, THREE)[1], row(three), atol=1e-6, rtol=0)


@pytest.mark.parametrize("place", [0, 1])
def test_aligned_equals_public_code_times_number_of_tasks(place: int) -> None:
    jacobian = (FOUR, THREE)[place]
    torch.testing.assert_close(
        answer(pt.AlignedMTL(), jacobian)[1], len(jacobian) * row(ALIGNED[place]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("place", [0, 1])
def test_cagrad_improves_on_public_code_within_the_ball(place: int) -> None:
    jacobian, theirs = (FOUR, THREE)[place], row(CAGRAD[place])
    ours, mean = answer(pt.CAGrad(c=0.5, rescale=0), jacobian)[1], jacobian.mean(dim=0)
    assert (ours - mean).norm() <= 0.5 * mean.norm() * (1 + 1e-12)
    assert (jacobian @ ours).min() >= (jacobian @ theirs).min() - 1e-9 * mean.norm()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("place", [0, 1])
def test_upgrad_has_no_conflict_where_public_code_has(place: int) -> None:
    jacobian, theirs = (FOUR, THREE)[place], row(UPGRAD[place])
    ours = answer(pt.UPGrad(), jacobian)[1]
    assert (jacobian @ ours).min() >= -1e-12
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
