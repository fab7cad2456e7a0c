"""Balancing methods, one file each; the documentation lists the methods that this package exports.

In: the evidence of a step (losses, Gramian or Jacobian) and the state of the method. Out: weights or an update, and the next
state. A method must not depend on the source of its evidence, nor on another method except one that it wraps or extends.
:mod:`~paretorch.balance.static_weights` finds the weights of :class:`Static` by training a model with another method.
"""

from paretorch.balance.aligned import AlignedMTL
from paretorch.balance.cagrad import CAGrad
from paretorch.balance.conflict_free import ConFIG
from paretorch.balance.conflict_free_momentum import ConFIGMomentum
from paretorch.balance.crmogm import CRMOGM
from paretorch.balance.dbmtl import DBMTL
from paretorch.balance.dualproj import DualProjection
from paretorch.balance.dwa import DWA
from paretorch.balance.equal import Equal
from paretorch.balance.excess import ExcessMTL
from paretorch.balance.fairgrad import FairGrad
from paretorch.balance.famo import FAMO
from paretorch.balance.geometric_mean import GeometricMean
from paretorch.balance.go4align import GO4Align
from paretorch.balance.graddrop import GradDrop
from paretorch.balance.gradnorm import GradNorm
from paretorch.balance.gradvac import GradVac
from paretorch.balance.imtl import IMTL
from paretorch.balance.imtlg import IMTLG
from paretorch.balance.imtll import IMTLL
from paretorch.balance.log_losses import LogLosses
from paretorch.balance.mgda import MGDA, min_norm_pair
from paretorch.balance.moco import MoCo
from paretorch.balance.modo import MoDo
from paretorch.balance.momentum import Momentum
from paretorch.balance.nash import NashMTL
from paretorch.balance.pcgrad import PCGrad
from paretorch.balance.rlw import RLW
from paretorch.balance.scale_invariant import ScaleInvariant
from paretorch.balance.sdmgrad import SDMGrad
from paretorch.balance.static import Static
from paretorch.balance.stch import SmoothTchebycheff
from paretorch.balance.uncertainty import Uncertainty
from paretorch.balance.upgrad import UPGrad

__all__ = [
    "CRMOGM",
    "DBMTL",
    "DWA",
    "FAMO",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "RLW",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "ConFIGMomentum",
    "DualProjection",
    "Equal",
    "ExcessMTL",
    "FairGrad",
    "GO4Align",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "LogLosses",
    "MoCo",
    "MoDo",
    "Momentum",
    "NashMTL",
    "PCGrad",
    "SDMGrad",
    "ScaleInvariant",
    "SmoothTchebycheff",
    "Static",
    "UPGrad",
    "Uncertainty",
    "min_norm_pair",
]
