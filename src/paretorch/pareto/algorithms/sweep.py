"""The sweep: one independent run per preference, what every other algorithm is measured against."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence, PreferenceAdaptation
from paretorch.pareto.scalarize import Scalarization, WeightedSum


@dataclass(frozen=True)
class Sweep(FrontAlgorithm):
    r"""Each model descends its own scalarization, by default the weighted sum, and knows nothing of the others.

    .. math:: \theta_i \leftarrow \theta_i - \eta \sum_t w_{it}\, \nabla L_t(\theta_i)

    The weighted sum finds the convex parts of a front only.

    Args:
        scalarization: s.
        adapt: as for :class:`~paretorch.MT2O`; a weighted sum cannot use it where the front is not convex.
        rate: of the movement, in (0, 1].
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
        """(n, T) the slopes of the scalarization."""
        return evidence.slopes(self.scalarization)

    @property
    def normalizes(self) -> bool:
        """As ``normalize`` says."""
        return self.normalize

    def preference_adaptation(self) -> PreferenceAdaptation | None:
        """As ``adapt`` and ``rate`` say."""
        return None if self.adapt is None else PreferenceAdaptation(self.adapt, self.rate)
