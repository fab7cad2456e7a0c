"""A small study of one workload, with other values on request."""

from __future__ import annotations

import dataclasses

from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training.run import Run

BASE = Run("digits", epochs=2)


def small_study(**changes: object) -> Study:
    study = Study(
        "mine", "Which?", (single_task("single", BASE, ("left", "right")), Treatment("sum", (BASE,))), "sum", "single"
    )
    return dataclasses.replace(study, **changes)  # type: ignore[arg-type]
