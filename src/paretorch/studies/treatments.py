"""Whether the treatments of a study can run at all, before any of them does."""

from __future__ import annotations

from paretorch.studies.study import Study
from paretorch.training import resolved_run
from paretorch.training.fronts import run as fronts


def check_treatments(study: Study) -> None:
    """Refuses a study with treatments whose names and options exclude each other, such as a method that has no Fork.

    Raises:
        ValueError: the treatments, and what is wrong with each.
    """
    wrong: dict[str, str] = {}
    for treatment, run in study.planned((0,)):
        try:
            (fronts if run.front else resolved_run).check(run)
        except ValueError as error:
            wrong.setdefault(treatment.label, str(error))
    if wrong:
        reasons = "".join(f"\n  {label!r}: {reason}" for label, reason in wrong.items())
        raise ValueError(
            f"the study {study.name!r} has treatments that cannot run, so none was started:{reasons}\n"
            "Change these, or leave them out"
        )
