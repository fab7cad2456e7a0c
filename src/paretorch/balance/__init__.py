"""Balancing methods, one file each. A line here is also a method's entry in the documentation."""

from paretorch.balance.cagrad import CAGrad
from paretorch.balance.dwa import DWA
from paretorch.balance.equal import Equal
from paretorch.balance.famo import FAMO
from paretorch.balance.graddrop import GradDrop
from paretorch.balance.imtl import IMTLG
from paretorch.balance.mgda import MGDA, min_norm_pair
from paretorch.balance.pcgrad import PCGrad
from paretorch.balance.static import Static
from paretorch.balance.uncertainty import Uncertainty
from paretorch.balance.upgrad import UPGrad

__all__ = [
    "DWA",
    "FAMO",
    "IMTLG",
    "MGDA",
    "CAGrad",
    "Equal",
    "GradDrop",
    "PCGrad",
    "Static",
    "UPGrad",
    "Uncertainty",
    "min_norm_pair",
]
