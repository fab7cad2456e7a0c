"""Fronts: a set of models along a trade-off, trained together."""

from paretorch.pareto.algorithm import FrontAlgorithm, Moving, Sharing
from paretorch.pareto.cosmos import COSMOS
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.ensemble import Ensemble, View
from paretorch.pareto.epo import EPO
from paretorch.pareto.extent import Extent
from paretorch.pareto.fit import fit_front
from paretorch.pareto.front import Front, Moment
from paretorch.pareto.hypervolume import hypervolume, hypervolume_gradient
from paretorch.pareto.hypervolume_ascent import HypervolumeAscent
from paretorch.pareto.mgda_starts import MGDAStarts
from paretorch.pareto.mt2o import MT2O
from paretorch.pareto.nsga2 import NSGA2
from paretorch.pareto.pamal import PaMaL
from paretorch.pareto.pareto_mtl import ParetoMTL
from paretorch.pareto.phn import PHNEPO, PHNLS
from paretorch.pareto.preferences import preferences, rays
from paretorch.pareto.scalarize import (
    PBI,
    AugmentedTchebycheff,
    Scalarization,
    SmoothTchebycheff,
    Tchebycheff,
    WeightedSum,
)
from paretorch.pareto.stationarity import residual
from paretorch.pareto.subset import best_subset
from paretorch.pareto.sweep import Sweep
from paretorch.pareto.training import DivergedWarning
from paretorch.pareto.transfer import Cosine, Fixed, Gated, Neighbours, Transfer

__all__ = [
    "COSMOS",
    "EPO",
    "MT2O",
    "NSGA2",
    "PBI",
    "PHNEPO",
    "PHNLS",
    "AugmentedTchebycheff",
    "Cosine",
    "DivergedWarning",
    "Ensemble",
    "Extent",
    "Fixed",
    "Front",
    "FrontAlgorithm",
    "Gated",
    "HypervolumeAscent",
    "MGDAStarts",
    "Moment",
    "Moving",
    "Neighbours",
    "PaMaL",
    "ParetoMTL",
    "Scalarization",
    "Sharing",
    "SmoothTchebycheff",
    "Sweep",
    "Tchebycheff",
    "Transfer",
    "View",
    "WeightedSum",
    "best_subset",
    "fit_front",
    "hypervolume",
    "hypervolume_gradient",
    "non_dominated",
    "preferences",
    "rays",
    "residual",
]
