"""Fronts: sets of models along the trade-off between tasks, trained together.

In: a workload, an algorithm and preferences. Out: a :class:`Front`, with its hypervolume and the files that store it. The package
does not import runs, studies or reports.
"""

from typing import TYPE_CHECKING

from paretorch.former_names import former_names
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence, PreferenceAdaptation, Sharing
from paretorch.pareto.algorithms.cosmos import COSMOS
from paretorch.pareto.algorithms.epo import EPO
from paretorch.pareto.algorithms.hypervolume_ascent import HypervolumeAscent
from paretorch.pareto.algorithms.mgda_starts import MGDAStarts
from paretorch.pareto.algorithms.mt2o import MT2O
from paretorch.pareto.algorithms.nsga2 import NSGA2
from paretorch.pareto.algorithms.pamal import PaMaL
from paretorch.pareto.algorithms.pareto_mtl import ParetoMTL
from paretorch.pareto.algorithms.phn import PHNEPO, PHNLS
from paretorch.pareto.algorithms.sweep import Sweep
from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.files.stored_front import FrontSnapshot
from paretorch.pareto.fitting.fit import fit_front
from paretorch.pareto.fitting.skipped_steps import DivergedWarning
from paretorch.pareto.front import Front
from paretorch.pareto.hypervolume import hypervolume, hypervolume_gradient
from paretorch.pareto.models.ensemble import Ensemble
from paretorch.pareto.objective_range import ObjectiveRange
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
from paretorch.pareto.transfer.matrices import Cosine, Fixed, Gated, Neighbours, Transfer

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
    "Fixed",
    "Front",
    "FrontAlgorithm",
    "FrontEvidence",
    "FrontSnapshot",
    "Gated",
    "HypervolumeAscent",
    "MGDAStarts",
    "Neighbours",
    "ObjectiveRange",
    "PaMaL",
    "ParetoMTL",
    "PreferenceAdaptation",
    "Scalarization",
    "Sharing",
    "SmoothTchebycheff",
    "Sweep",
    "Tchebycheff",
    "Transfer",
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

if not TYPE_CHECKING:
    __getattr__ = former_names(
        __name__,
        {
            "Extent": "ObjectiveRange",
            "Moment": "FrontSnapshot",
            "Moving": "PreferenceAdaptation",
            "View": "FrontEvidence",
        },
    )
