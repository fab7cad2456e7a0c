"""Multi-task multi-objective descent: N scalarizations with transfer between their models."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence, PreferenceAdaptation, Sharing
from paretorch.pareto.scalarize import Scalarization, SmoothTchebycheff
from paretorch.pareto.transfer.matrices import Gated, Transfer


@dataclass(frozen=True)
class MT2O(FrontAlgorithm):
    r"""Each model descends its own scalarization, with transfer of parameters from its neighbours.

    .. math:: \theta_i \leftarrow \sum_j M_{ij}\, \theta_j - \eta\, \nabla F_i(\theta_i), \qquad F_i(\theta) = s(L(\theta); w_i)

    The gradient is taken at theta_i, not at the mixture, and all theta_j are those of the same step. Another optimizer's step,
    such as Adam's, replaces eta grad F_i. With ``transfer=None`` the models are trained independently.

    Args:
        scalarization: s.
        transfer: computes M; None: no transfer.
        parameters: those that are transferred, ``"all"`` or ``"encoder"``.
        fade: whether transfer decreases linearly to zero at the end, in addition to following the learning rate.
        adapt: None: preferences are constant. ``"hypervolume"``, ``"spacing"``: they are adapted during training to maximize
            the hypervolume or the evenness of the losses; the given ones then determine the initial ones.
        rate: of their adaptation, in (0, 1].
        normalize: whether losses are normalized by the range from the ideal to the nadir point, both estimated during training,
            so that preferences do not depend on the units of the losses. The learning rate of plain descent is then relative to
            the range; see :class:`~paretorch.pareto.ObjectiveRange`.

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
            raise ValueError(
                f"scalarization is an instance, such as SmoothTchebycheff(0.02), got {self.scalarization!r}"
            )
        if not isinstance(self.transfer, Transfer | None):
            raise ValueError(f"transfer is an instance, such as Gated(), or None, got {self.transfer!r}")
        Sharing(Gated(), self.scalarization, self.parameters)
        PreferenceAdaptation(self.adapt or "spacing", self.rate)

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) derivatives of the scalarization."""
        return evidence.slopes(self.scalarization)

    @property
    def normalizes(self) -> bool:
        """The option ``normalize``."""
        return self.normalize

    def sharing(self) -> Sharing | None:
        """By the options ``transfer``, ``parameters`` and ``fade``."""
        if self.transfer is None:
            return None
        return Sharing(
            self.transfer, self.scalarization, self.parameters, self.fade, self.normalize, settled=self.adapt is None
        )

    def preference_adaptation(self) -> PreferenceAdaptation | None:
        """By the options ``adapt`` and ``rate``."""
        return None if self.adapt is None else PreferenceAdaptation(self.adapt, self.rate)
