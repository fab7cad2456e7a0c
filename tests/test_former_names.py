"""Names and modules that have moved work and warn."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from paretorch.former_names import MODULES, former_names

OUTSIDE = """
import warnings
warnings.simplefilter("error", FutureWarning)
import paretorch, sys
try:
    from paretorch.core.conflict import conflict_averse
except FutureWarning as warning:
    print(warning)
"""


@pytest.mark.parametrize("former", MODULES)
def test_former_module_has_the_content_of_the_new_one_and_warns(former: str) -> None:
    sys.modules.pop(former, None)
    with pytest.warns(FutureWarning, match=f"{former} is now {MODULES[former]}"):
        module = importlib.import_module(former)
    new = importlib.import_module(MODULES[former])
    names = [name for name in vars(new) if not name.startswith("_")]
    assert names
    assert all(getattr(module, name) is getattr(new, name) for name in names)


def test_former_module_warns_in_a_process_of_its_own() -> None:
    output = subprocess.run([sys.executable, "-c", OUTSIDE], check=True, capture_output=True, text=True).stdout
    assert output.strip() == (
        "paretorch.core.conflict is now paretorch.core.solvers.conflict_averse; the former name works until Paretorch 0.3"
    )


def test_former_name_of_an_attribute_is_the_new_object_and_warns() -> None:
    lookup = former_names("paretorch.pareto", {"Old": "MT2O"})
    with pytest.warns(FutureWarning, match=r"paretorch.pareto.Old is now paretorch.pareto.MT2O"):
        found = lookup("Old")
    assert found is importlib.import_module("paretorch.pareto").MT2O
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        lookup("Other")


def test_former_module_that_never_was_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"paretorch.core.conflicts"):
        importlib.import_module("paretorch.core.conflicts")


@pytest.mark.parametrize(
    ("module", "former", "name"),
    [
        ("paretorch.studies.study", "alone", "single_task"),
        ("paretorch.studies.study", "chosen", "best_of_grid"),
        ("paretorch.studies.study", "across", "merged"),
        ("paretorch.training.monitoring.training_monitor", "ExplodedError", "NonFiniteParametersError"),
        ("paretorch.training.monitoring.training_monitor", "TroubleWarning", "TrainingWarning"),
    ],
)
def test_former_name_of_studies_and_training_is_the_renamed_one_and_warns(module: str, former: str, name: str) -> None:
    found = importlib.import_module(module)
    with pytest.warns(FutureWarning, match=f"{former} is now {module}.{name}"):
        assert getattr(found, former) is getattr(found, name)
