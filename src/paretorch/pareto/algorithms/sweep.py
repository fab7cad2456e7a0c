"""The sweep: one independent run per preference, the baseline of other algorithms."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence, PreferenceAdaptation
from paretorch.pareto.scalarize import Scalarization, WeightedSum


@dataclass(frozen=True)
class Sweep(FrontAlgorithm):
    r"""Each model descends its own scalarization, by default the weighted sum, independently of the others.

    .. math:: \theta_i \leftarrow \theta_i - \eta \sum_t w_{it}\, \nabla L_t(\theta_i)

    The minima of the weighted sum are on convex parts of a front only.

    Args:
        scalarization: s.
        adapt: as for :class:`~paretorch.MT2O`; without effect for a weighted sum on parts that are not convex.
        rate: of the adaptation, in (0, 1].
        normalize: as for :class:`~paretorch.MT2O`.

    Example:
        >>> Sweep().scalarization
        WeightedSum()
    """

    scalarization: Scalarization = field(default_factory=WeightedSum)
    adapt: str | None = None
    rate: float = 0.3
    normalize: bool = False

    def __post_init__(self) -> None:
        PreferenceAdaptation(self.adapt or "spacing", self.rate)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) derivatives of the scalarization."""
        return evidence.slopes(self.scalarization)

    @property
    def normalizes(self) -> bool:
        """The option ``normalize``."""
        return self.normalize

    def preference_adaptation(self) -> PreferenceAdaptation | None:
        """By the options ``adapt`` and ``rate``."""
        return None if self.adapt is None else PreferenceAdaptation(self.adapt, self.rate)
