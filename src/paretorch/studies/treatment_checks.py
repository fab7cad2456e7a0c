"""Checks that the treatments of a study can be trained, before the first run."""

from __future__ import annotations

from paretorch.studies.study import Study
from paretorch.training import resolved_run
from paretorch.training.fronts import run as fronts


def check_treatments(study: Study) -> None:
    """Checks that names and options of every run exist and can be combined, such as a method that can be used on features.

    Raises:
        ValueError: a treatment cannot be trained; the message names each of them with the reason.
    """
    reasons: dict[str, str] = {}
    for treatment, run in study.planned((0,)):
        try:
            (fronts if run.front else resolved_run).check(run)
        except ValueError as error:
            reasons.setdefault(treatment.label, str(error))
    if reasons:
        lines = "".join(f"\n  {label!r}: {reason}" for label, reason in reasons.items())
        raise ValueError(
            f"the study {study.name!r} has treatments that cannot run, so none was started:{lines}\n"
            "Change or remove them"
        )
