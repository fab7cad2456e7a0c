"""The first sentence of a report: what the recommended treatment gains, in plain words."""

from __future__ import annotations

import dataclasses

import pytest

import studies_synthetic as synthetic
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.findings.headline import answer
from paretorch.reports.reading.load import load


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarize(load(synthetic.finished(tmp_path_factory.mktemp("headline") / "study", seeds=5).path))


def with_roles(summary: Summary, **roles: str) -> Summary:
    """The summary of a study that names its plain sum and recommended treatment."""
    plan = summary.results.plan
    study = dataclasses.replace(plan.study, **roles)  # type: ignore[arg-type]
    results = dataclasses.replace(summary.results, plan=dataclasses.replace(plan, study=study))
    return dataclasses.replace(summary, results=results)


def test_answer_has_the_gain_over_the_plain_sum_and_the_runs_of_the_reference(summary: Summary) -> None:
    found = answer(with_roles(summary, recommended="same", plain_sum="bad"))
    difference = summary.rows["bad"].delta_m.mean() - summary.rows["same"].delta_m.mean()
    assert found == (
        f"same takes one training run: on average its metrics are {difference:.0f}\u00a0% better than with the plain sum of the "
        "losses, and no difference from tuned (15 runs) was found."
    )


def test_answer_names_a_recommended_treatment_that_is_worse(summary: Summary) -> None:
    found = answer(with_roles(summary, recommended="bad", plain_sum="same"))
    assert "% worse than with the plain sum of the losses" in found
    assert "% worse than with tuned (" in found


def test_answer_is_empty_without_a_recommended_treatment(summary: Summary) -> None:
    assert answer(summary) == ""
    assert answer(with_roles(summary, recommended="tuned")) == ""
