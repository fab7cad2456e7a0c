"""The methods table: the properties of every method, and its recorded result for one Jacobian. A missing method fails a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import paretorch as pt

TASKS2 = ("0", "1")


@dataclass(frozen=True)
class Entry:
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
    converges: bool = True

    @property
    def name(self) -> str:
        return repr(self.method)


METHODS = [
    Entry(pt.Equal(), weights=(1, 1)),
    Entry(pt.Static({"0": 0.5, "1": 2.0}), weights=(0.5, 2.0), calibrated=False, equivariant=False, single=False),
    Entry(pt.ScaleInvariant(), weights=(1, 0.5), calibrated=False, single=False),
    Entry(pt.Uncertainty(), weights=(1, 1), calibrated=False),
    Entry(pt.DWA(), weights=(1, 1)),
    Entry(pt.RLW(), weights=(1.724576, 0.275424), equivariant=False),
    Entry(pt.RLW("dirichlet"), weights=(1.480709, 0.519291), equivariant=False),
    Entry(pt.GeometricMean(), weights=(0.707107, 0.353553), calibrated=False),
    Entry(pt.IMTLL(), weights=(1, 1)),
    Entry(pt.GO4Align(), weights=(1.500075, 0.749963), calibrated=False),
    Entry(pt.SmoothTchebycheff(), weights=(1, 0.5), calibrated=False, single=False),
    Entry(pt.FAMO(), weights=(2 / 3, 1 / 3), calibrated=False),
    Entry(pt.MGDA(), weights=(0.6, 0.4), update=(0, 1, 1), conflict_free=True),
    Entry(pt.MGDA(normalize="l2"), weights=(0.5, 0.5)),
    Entry(pt.MGDA(solver="frank-wolfe"), weights=(0.6, 0.4), update=(0, 1, 1)),
    Entry(pt.PCGrad(), update=(0.584795, 3.801170, 3.801170), equivariant=False),
    Entry(pt.GradVac(), update=(0.584795, 3.801170, 3.801170), equivariant=False),
    Entry(pt.CAGrad(c=0.5, rescale=0), update=(0.183503, 1.204124, 1.204124)),
    Entry(pt.CAGrad(), update=(0.146803, 0.963299, 0.963299)),
    Entry(
        pt.IMTLG(), weights=(0.592330, 0.407670), update=(0.076697, 1, 1), conflict_free="independent", scale_free=True
    ),
    Entry(
        pt.IMTL(), weights=(0.592330, 0.407670), update=(0.076697, 1, 1), conflict_free="independent", scale_free=True
    ),
    Entry(
        pt.NashMTL(),
        weights=(0.591461, 0.407071),
        update=(0.076584, 0.998533, 0.998533),
        conflict_free=True,
        scale_free=True,
    ),
    Entry(
        pt.FairGrad(alpha=1.0),
        weights=(0.591461, 0.407071),
        update=(0.076584, 0.998533, 0.998533),
        conflict_free=True,
        scale_free=True,
    ),
    Entry(pt.FairGrad(), weights=(0.471363, 0.319454), conflict_free=True),
    Entry(pt.AlignedMTL(), weights=(1.118144, 0.816522), update=(0.426557, 1.934666, 1.934666)),
    Entry(pt.AlignedMTL("median"), weights=(1.118144, 0.816522)),
    Entry(pt.AlignedMTL("rmse"), weights=(3.021731, 2.206613)),
    Entry(pt.UPGrad(), weights=(1.111111, 0.789474), update=(0.292398, 1.900585, 1.900585), conflict_free=True),
    Entry(pt.DualProjection(), weights=(0.611111, 0.5), update=(0.555556, 1.111111, 1.111111), conflict_free=True),
    Entry(pt.ConFIG(), update=(0.158809, 2.070607, 2.070607), conflict_free="independent", scale_free=True),
    Entry(pt.ConFIG("mean"), conflict_free="independent", scale_free=True, converges=False),
    Entry(pt.ConFIG("min"), conflict_free="independent", scale_free=True, converges=False),
    Entry(pt.GradNorm(), weights=(1, 1)),
    Entry(pt.SDMGrad(), weights=(0.115385, 0.884615)),
    Entry(pt.SDMGrad(batches=3), weights=(0.115385, 0.884615)),
    Entry(pt.MoDo(), weights=(0.505, 0.495), homogeneous=False),
    Entry(pt.GradDrop(), equivariant=False),
    Entry(pt.MoCo(), update=(-4, 1, 1), homogeneous=False),
    Entry(pt.DBMTL(), update=(0.129483, 1.688247, 1.688247), calibrated=False, single=False),
    Entry(pt.ExcessMTL(), weights=(1, 1)),
    Entry(
        pt.ConFIGMomentum(),
        update=(1, 1, 1),
        homogeneous=False,
        calibrated=False,
        equivariant=False,
        single=False,
        converges=False,
    ),
    Entry(pt.LogLosses(pt.MGDA()), weights=(0.414141, 0.292929), calibrated=False, single=False),
    Entry(pt.LogLosses(pt.UPGrad()), calibrated=False, single=False, conflict_free=True),
    Entry(pt.Momentum(pt.CAGrad(), 0.9), update=(0.146803, 0.963299, 0.963299)),
    Entry(pt.Momentum(pt.NashMTL(), 0.9), update=(0.076584, 0.998533, 0.998533), conflict_free=True, scale_free=True),
    Entry(pt.Momentum(pt.GradDrop(), 0.9), equivariant=False),
    Entry(pt.CRMOGM(pt.MGDA()), weights=(0.6, 0.4), conflict_free=True),
    Entry(pt.CRMOGM(pt.PCGrad(), 0.5), update=(0.584795, 3.801170, 3.801170), equivariant=False),
]
