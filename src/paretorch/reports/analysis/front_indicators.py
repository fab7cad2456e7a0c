"""Quality indicators of fronts that moocore computes: IGD+, additive epsilon, R2, and attainment surfaces over seeds.

Shapes: ``N`` points of a set, ``M`` points of the reference set, ``T`` tasks. All losses are minimized.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretorch.core.arrays import Array
from paretorch.extras import extra
from paretorch.pareto.dominance import non_dominated


@dataclass(frozen=True)
class ReferenceSet:
    """The non-dominated points of the union of many sets, and the range by which losses are normalized.

    Args:
        points: (M, T) losses, in their units.
        ideal: (T,) the lowest loss of each task.
        size: (T,) the range from the ideal point to the nadir point, the largest losses of the set; 1 where the range is zero.
    """

    points: Array
    ideal: Array
    size: Array

    def normalize(self, losses: Array) -> Array:
        """(N, T) losses in units of the range: the ideal point is 0, the nadir point 1."""
        return np.asarray((losses - self.ideal) / self.size)


@dataclass(frozen=True)
class Indicators:
    """Indicators of one set of points relative to a reference set, on normalized losses; lower is better.

    Args:
        igd_plus: mean distance from a reference point to the region that the set dominates, at least 0.
        epsilon: the smallest number that, subtracted from all losses of the set, makes it weakly dominate the reference set.
        r2: mean over all weights of the set's smallest weighted Tchebycheff value from the ideal point; nan unless T = 2.
    """

    igd_plus: float
    epsilon: float
    r2: float


NO_INDICATORS = Indicators(math.nan, math.nan, math.nan)


def missing_package() -> str | None:
    """What is not computed and how to install it, in one sentence; None if moocore is installed."""
    if importlib.util.find_spec("moocore") is not None:
        return None
    return (
        "IGD+, additive epsilon, R2 and attainment surfaces are not computed: moocore is not installed: "
        "pip install 'paretorch[fronts]'"
    )


def reference_set(sets: Sequence[Array]) -> ReferenceSet | None:
    """The non-dominated points of the union of sets; None if no point is finite.

    Args:
        sets: (N, T) losses of each set; N may differ.

    Example:
        >>> reference_set([np.array([[0.0, 4.0], [2.0, 2.0]]), np.array([[1.0, 2.0]])]).points
        array([[0., 4.],
               [1., 2.]])
    """
    union = np.concatenate([_finite(each) for each in sets]) if sets else np.empty((0, 0))
    if not len(union):
        return None
    points = np.unique(union[non_dominated(torch.from_numpy(union)).numpy()], axis=0)
    size = points.max(axis=0) - points.min(axis=0)
    return ReferenceSet(points, points.min(axis=0), np.where(size > 0, size, 1.0))


def indicators(points: Array, reference: ReferenceSet) -> Indicators:
    r"""IGD+, additive epsilon and R2 of a set of points, on losses normalized by the range of the reference set.

    .. math::
        \mathrm{IGD}^+ = \frac{1}{M} \sum_r \min_a \big\lVert \max(a - r, 0) \big\rVert_2, \qquad
        \epsilon = \max_r \min_a \max_t (a_t - r_t), \qquad
        R_2 = \int_0^1 \min_a \max\big(w a_1, (1 - w) a_2\big) \, dw

    Args:
        points: (N, T) losses; points that are not finite are ignored.
        reference: of all sets that are compared.

    Returns:
        The indicators; nan without a finite point.

    Raises:
        ModuleNotFoundError: moocore is not installed.

    References:
        Ishibuchi et al., "Modified Distance Calculation in Generational Distance and Inverted Generational Distance", EMO 2015;
        Zitzler et al., "Performance Assessment of Multiobjective Optimizers", IEEE TEC 2003; Hansen & Jaszkiewicz, "Evaluating
        the quality of approximations to the non-dominated set", 1998, with the integral in place of a sum over weights
        (Schäpermeier & Kerschke, 2025).
    """
    moocore = _moocore()
    finite = reference.normalize(_finite(points)) if len(points) else points
    if not len(finite):
        return NO_INDICATORS
    ideal = reference.normalize(reference.points)
    exact = getattr(moocore, "r2_exact", None)  # since moocore 0.3; for two objectives
    return Indicators(
        igd_plus=float(moocore.igd_plus(finite, ref=ideal)),
        epsilon=float(moocore.epsilon_additive(finite, ref=ideal)),
        r2=float(exact(finite, ref=[0.0, 0.0])) if exact is not None and finite.shape[1] == 2 else math.nan,
    )


def attainment_surface(sets: Sequence[Array], share: float) -> Array:
    """The corners of the surface that at least a share of the sets attain: they have a point which is at most as large.

    Args:
        sets: (N, 2) or (N, 3) losses of each seed's set; points that are not finite are ignored.
        share: of the sets, in (0, 1]; 0.5 is the median surface.

    Returns:
        (n, T) non-dominated corners, by the first loss; empty if fewer sets have a point.

    Raises:
        ModuleNotFoundError: moocore is not installed.

    References:
        Grunert da Fonseca, Fonseca & Hall, "Inferential Performance Assessment of Stochastic Optimisers and the Attainment
        Function", EMO 2001.
    """
    moocore = _moocore()
    finite = [_finite(each) for each in sets]
    points = np.concatenate(finite)
    wanted = math.ceil(share * len(sets) - 1e-9)  # sets that attain a corner
    filled = [each for each in finite if len(each)]
    if len(filled) < wanted:
        return np.empty((0, points.shape[1]))
    numbers = np.repeat(np.arange(1, len(filled) + 1), [len(each) for each in filled])
    found = np.asarray(moocore.eaf(points, numbers, percentiles=[100 * wanted / len(filled)]), float)[:, :-1]
    return np.asarray(found[np.lexsort(found.T[::-1])])


def _finite(points: Array) -> Array:
    return np.asarray(points[np.isfinite(points).all(axis=1)], float)


def _moocore() -> Any:
    with extra("fronts"):
        return importlib.import_module("moocore")
