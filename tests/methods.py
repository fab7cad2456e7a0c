"""The methods table: the properties of every method, and its recorded result for one Jacobian. A missing method fails a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import paretorch as pt
from paretorch.core.contract import Status

TASKS2 = ("0", "1")


@dataclass(frozen=True)
class MethodEntry:
    """A method and its properties (the table of the documentation).

    Args:
        method: an instance that supports any number of tasks.
        weights, update: recorded result at the paper's scale for J = [[-4, 1, 1], [6, 1, 1]] with losses (1, 2).
        conflict_free: <d, g_t> >= 0 for all tasks, for every input, or ("independent") for gradients that are linearly
            independent within rounding.
        homogeneous: of degree one in the gradients, as calibrated.
        scale_free: the direction does not change when a task's gradient is scaled.
        calibrated: T equal gradients g give T g.
        equivariant: permuting the tasks permutes the result, exactly and not only in distribution.
        single: for one task the update is its gradient.
        exact: solves to its tolerance on every Gramian.
        converges: descent with decreasing steps reaches a Pareto stationary point within the steps of the test.
    """

    method: pt.Method[Any]
    weights: tuple[float, float] | None = None
    update: tuple[float, float, float] | None = None
    conflict_free: bool | Literal["independent"] = False
    homogeneous: bool = True
    scale_free: bool = False
    calibrated: bool = True
    equivariant: bool = True
    single: bool = True
    exact: bool = True
    converges: bool = True

    @property
    def ends(self) -> tuple[Status, ...]:
        """How a solve can end on finite gradients."""
        return (
            (Status.SOLVED, Status.STATIONARY)
            if self.exact
            else (Status.SOLVED, Status.STATIONARY, Status.NOT_CONVERGED)
        )

    @property
    def name(self) -> str:
        return repr(self.method)


METHODS = [
    MethodEntry(pt.Equal(), weights=(1, 1)),
    MethodEntry(pt.Static({"0": 0.5, "1": 2.0}), weights=(0.5, 2.0), calibrated=False, equivariant=False, single=False),
    MethodEntry(pt.ScaleInvariant(), weights=(1, 0.5), calibrated=False, single=False),
    MethodEntry(pt.Uncertainty(), weights=(1, 1), calibrated=False),
    MethodEntry(pt.DWA(), weights=(1, 1)),
    MethodEntry(pt.RLW(), weights=(1.724576, 0.275424), equivariant=False),
    MethodEntry(pt.RLW("dirichlet"), weights=(1.480709, 0.519291), equivariant=False),
    MethodEntry(pt.GeometricMean(), weights=(0.707107, 0.353553), calibrated=False),
    MethodEntry(pt.IMTLL(), weights=(1, 1)),
    MethodEntry(pt.GO4Align(), weights=(1.500075, 0.749963), calibrated=False),
    MethodEntry(pt.SmoothTchebycheff(), weights=(1, 0.5), calibrated=False, single=False),
    MethodEntry(pt.FAMO(), weights=(2 / 3, 1 / 3), calibrated=False),
    MethodEntry(pt.MGDA(), weights=(0.6, 0.4), update=(0, 1, 1), conflict_free=True),
    MethodEntry(pt.MGDA(normalize="l2"), weights=(0.5, 0.5)),
    MethodEntry(pt.MGDA(solver="frank-wolfe"), weights=(0.6, 0.4), update=(0, 1, 1), exact=False),
    MethodEntry(pt.PCGrad(), update=(0.584795, 3.801170, 3.801170), equivariant=False),
    MethodEntry(pt.GradVac(), update=(0.584795, 3.801170, 3.801170), equivariant=False),
    MethodEntry(pt.CAGrad(c=0.5, rescale=0), update=(0.183503, 1.204124, 1.204124)),
    MethodEntry(pt.CAGrad(), update=(0.146803, 0.963299, 0.963299)),
    MethodEntry(
        pt.IMTLG(), weights=(0.592330, 0.407670), update=(0.076697, 1, 1), conflict_free="independent", scale_free=True
    ),
    MethodEntry(
        pt.IMTL(), weights=(0.592330, 0.407670), update=(0.076697, 1, 1), conflict_free="independent", scale_free=True
    ),
    MethodEntry(
        pt.NashMTL(),
        weights=(0.591461, 0.407071),
        update=(0.076584, 0.998533, 0.998533),
        conflict_free=True,
        scale_free=True,
    ),
    MethodEntry(
        pt.FairGrad(alpha=1.0),
        weights=(0.591461, 0.407071),
        update=(0.076584, 0.998533, 0.998533),
        conflict_free=True,
        scale_free=True,
    ),
    MethodEntry(pt.FairGrad(), weights=(0.471363, 0.319454), conflict_free=True),
    MethodEntry(pt.AlignedMTL(), weights=(1.118144, 0.816522), update=(0.426557, 1.934666, 1.934666)),
    MethodEntry(pt.AlignedMTL("median"), weights=(1.118144, 0.816522)),
    MethodEntry(pt.AlignedMTL("rmse"), weights=(3.021731, 2.206613)),
    MethodEntry(pt.UPGrad(), weights=(1.111111, 0.789474), update=(0.292398, 1.900585, 1.900585), conflict_free=True),
    MethodEntry(
        pt.DualProjection(), weights=(0.611111, 0.5), update=(0.555556, 1.111111, 1.111111), conflict_free=True
    ),
    MethodEntry(pt.ConFIG(), update=(0.158809, 2.070607, 2.070607), conflict_free="independent", scale_free=True),
    MethodEntry(pt.ConFIG("mean"), conflict_free="independent", scale_free=True, converges=False),
    MethodEntry(pt.ConFIG("min"), conflict_free="independent", scale_free=True, converges=False),
    MethodEntry(pt.GradNorm(), weights=(1, 1)),
    MethodEntry(pt.SDMGrad(), weights=(0.115385, 0.884615)),
    MethodEntry(pt.SDMGrad(batches=3), weights=(0.115385, 0.884615)),
    MethodEntry(pt.MoDo(), weights=(0.505, 0.495), homogeneous=False),
    MethodEntry(pt.GradDrop(), equivariant=False),
    MethodEntry(pt.MoCo(), update=(-4, 1, 1), homogeneous=False),
    MethodEntry(pt.DBMTL(), update=(0.129483, 1.688247, 1.688247), calibrated=False, single=False),
    MethodEntry(pt.ExcessMTL(), weights=(1, 1)),
    MethodEntry(
        pt.ConFIGMomentum(),
        update=(1, 1, 1),
        homogeneous=False,
        calibrated=False,
        equivariant=False,
        single=False,
        converges=False,
    ),
    MethodEntry(pt.LogLosses(pt.MGDA()), weights=(0.414141, 0.292929), calibrated=False, single=False),
    MethodEntry(pt.LogLosses(pt.UPGrad()), calibrated=False, single=False, conflict_free=True),
    MethodEntry(pt.Momentum(pt.CAGrad(), 0.9), update=(0.146803, 0.963299, 0.963299)),
    MethodEntry(
        pt.Momentum(pt.NashMTL(), 0.9), update=(0.076584, 0.998533, 0.998533), conflict_free=True, scale_free=True
    ),
    MethodEntry(pt.Momentum(pt.GradDrop(), 0.9), equivariant=False),
    MethodEntry(pt.CRMOGM(pt.MGDA()), weights=(0.6, 0.4), conflict_free=True),
    MethodEntry(pt.CRMOGM(pt.PCGrad(), 0.5), update=(0.584795, 3.801170, 3.801170), equivariant=False),
]
