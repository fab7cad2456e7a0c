"""Multi-task multi-objective descent: N scalarizations at once, whose models help one another."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence, PreferenceAdaptation, Sharing
from paretorch.pareto.scalarize import Scalarization, SmoothTchebycheff
from paretorch.pareto.transfer.matrices import Gated, Transfer


@dataclass(frozen=True)
class MT2O(FrontAlgorithm):
    r"""Each model descends its own scalarization, and takes over part of its neighbours' weights.

    .. math:: \theta_i \leftarrow \sum_j M_{ij}\, \theta_j - \eta\, \nabla F_i(\theta_i), \qquad F_i(\theta) = s(L(\theta); w_i)

    The gradient is taken at theta_i, not at the mixture, and all theta_j are those of the same step. The step of momentum or Adam
    takes the place of eta grad F_i. With ``transfer=None`` the models are trained independently.

    Args:
        scalarization: s.
        transfer: what makes M; None: no transfer.
        parameters: what is transferred, ``"all"`` or ``"encoder"``.
        fade: whether transfer fades linearly to nothing at the end, beside following the learning rate.
        adapt: None: preferences stay as they are given. ``"hypervolume"``, ``"spacing"``: they move while training so that the
            hypervolume, or the evenness of the losses' spacing, grows; those given then say how the first ones are spread.
        rate: of their movement, in (0, 1].
        normalize: whether losses are measured from the ideal point in units of its distance to the nadir point, both tracked
            while training: preferences then mean the same in whatever units the losses are. The learning rate of plain descent
            is then per range, which is a part of the losses; see :class:`~paretorch.pareto.ObjectiveRange`.

    Example:
        >>> MT2O(transfer=None).scalarization
        SmoothTchebycheff(mu=0.02, augment=0.0003)

    References:
        Bai, Gupta & Ong, "Multi-task gradient descent", 2024, Algorithm 1.
    """

    scalarization: Scalarization = field(default_factory=lambda: SmoothTchebycheff(0.02, 0.0003))
    transfer: Transfer | None = field(default_factory=Gated)
    parameters: str = "all"
    fade: bool = True
    adapt: str | None = None
    rate: float = 0.3
    normalize: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.scalarization, Scalarization):
            raise ValueError(f"scalarization is one, made, such as SmoothTchebycheff(0.02), got {self.scalarization!r}")
        if not isinstance(self.transfer, Transfer | None):
            raise ValueError(f"transfer is one, made, such as Gated(), or None, got {self.transfer!r}")
        Sharing(Gated(), self.scalarization, self.parameters)
        PreferenceAdaptation(self.adapt or "spacing", self.rate)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) the slopes of the scalarization."""
        return evidence.slopes(self.scalarization)

    @property
    def normalizes(self) -> bool:
        """As ``normalize`` says."""
        return self.normalize

    def sharing(self) -> Sharing | None:
        """As ``transfer``, ``parameters`` and ``fade`` say."""
        if self.transfer is None:
            return None
        return Sharing(
            self.transfer, self.scalarization, self.parameters, self.fade, self.normalize, settled=self.adapt is None
        )

    def preference_adaptation(self) -> PreferenceAdaptation | None:
        """As ``adapt`` and ``rate`` say."""
        return None if self.adapt is None else PreferenceAdaptation(self.adapt, self.rate)
