"""The study ``line-search``: its treatments, and searches without tuned options."""

from __future__ import annotations

import pytest

from paretorch.studies.catalog.line_search import ADAM_RATES, AUTOMATIC, BEST_RATE, RATES
from paretorch.studies.lookup import find_study
from paretorch.studies.study import Combine, Study
from paretorch.training.line_search import searches
from paretorch.training.names.constructors import check_arguments, find_named, parse
from paretorch.training.names.methods import find_method
from paretorch.training.names.optimizers import optimizers

SEARCHES = ("classical", "fast, as published", "fast, default", AUTOMATIC, "fast, linearised, SASA+", "fast, linearised, Adam",
            "fast, linearised, Muon", "fast, linearised, Kronecker", "classical, L-BFGS")  # fmt: skip


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_line_search_study_has_grids_of_fixed_rates_and_searches_without_rate(scale: str) -> None:
    study: Study = find_study("line-search", scale)
    first = study.on(study.workloads[0])
    by_label = {treatment.label: treatment for treatment in first.treatments}
    assert study.reference == BEST_RATE
    for label in ("SGD, sum, best of 8 rates", "SGD, parameters, best of 8 rates", BEST_RATE):
        assert by_label[label].combine is Combine.CHOOSE
        assert [run.optimizer_options["lr"] for run in by_label[label].runs] == list(RATES)
    assert [run.optimizer_options["lr"] for run in by_label["Adam, best of 6 rates"].runs] == list(ADAM_RATES)
    assert (min(RATES), max(RATES), len(RATES), len(ADAM_RATES)) == (1e-3, 1e-1, 8, 6)
    for label in SEARCHES:
        (run,) = by_label[label].runs
        assert run.optimizer in searches()
        assert "lr" not in run.optimizer_options
        assert run.optimizer_options["verify"]
    assert {run.batch_size for treatment in first.treatments for run in treatment.runs} == {
        first.treatments[0].runs[0].batch_size
    }


def test_line_search_study_small_has_all_treatments_on_digits_and_fewer_on_scenes() -> None:
    study = find_study("line-search", "small")
    assert [title.partition("(")[0] for title in study.workloads] == ["digits", "scenes"]
    digits, scenes = (study.on(title) for title in study.workloads)
    assert {treatment.label for treatment in scenes.treatments} < {treatment.label for treatment in digits.treatments}


def test_line_search_study_paper_is_on_published_data() -> None:
    study = find_study("line-search", "paper", {"root": "elsewhere"})
    assert [title.partition("(")[0] for title in study.workloads] == ["multimnist", "cifar10", "cityscapes"]
    assert all("root='elsewhere'" in title for title in study.workloads)
    streets = study.on(study.workloads[2]).treatments[0].runs[0]
    assert (streets.options["height"], streets.options["augmentation"]) == (512, "rotate")


def test_line_search_study_uses_valid_options_of_searches() -> None:
    for treatment in find_study("line-search", "small").treatments:
        for run in treatment.runs:
            find_method(run.method)
            if run.optimizer in searches():
                made = find_named("search", run.optimizer, searches())
                check_arguments(run.optimizer, made, (None, None, None), dict(run.optimizer_options))
                direction = run.optimizer_options.get("direction")
                assert direction is None or parse(str(direction)).name in {
                    *optimizers(),
                    "Kronecker",
                    "Orthogonal",
                    "LBFGS",
                }
