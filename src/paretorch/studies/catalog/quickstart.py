"""Quickstart: does balancing help on real digits, when one of three losses is orders of magnitude larger?"""

from __future__ import annotations

from dataclasses import replace

from paretorch.studies.study import Study, Treatment, best_of_grid, check_scale, single_task
from paretorch.training.run import Run
from paretorch.workloads.streams import Plain

SCALES = ("smoke", "small")
TASKS = ("left", "right", "ink")
OPTIONS: dict[str, dict[str, Plain]] = {
    "smoke": {"ink": True, "train": 512, "validation": 256, "test": 256},
    "small": {"ink": True},
}
EPOCHS = {"smoke": 1, "small": 7}

# powers of ten around 0.001, with which the squared error of the ink is as large as a cross-entropy; the sum has 1
INK_WEIGHTS = (0.1, 0.01, 0.001, 0.0001, 0.00001)


def study(scale: str) -> Study:
    """Eight ways of training one network on two digits and the amount of ink.

    Args:
        scale: ``"smoke"`` (seconds, without meaning) or ``"small"`` (about two minutes on two cores).

    Raises:
        ValueError: an unknown scale.
    """
    check_scale("quickstart", scale, SCALES)
    base = Run("digits", options=OPTIONS[scale], optimizer_options={"lr": 5e-3}, epochs=EPOCHS[scale], batch_size=256)
    weights = [{"left": 1.0, "right": 1.0, "ink": weight} for weight in INK_WEIGHTS]
    return Study(
        name="quickstart",
        question="Which way of training two digits and a loss orders of magnitude larger gives the best network?",
        treatments=(
            single_task("single task", base, TASKS),
            Treatment("sum", (base,)),
            best_of_grid("static weights, tuned", (replace(base, method=f"Static({w})") for w in weights)),
            Treatment("uncertainty", (replace(base, method="Uncertainty({'ink': 'regression'})"),)),
            Treatment("FAMO", (replace(base, method="FAMO()"),)),
            Treatment("MGDA, features", (replace(base, method="MGDA()"),)),
            Treatment("UPGrad, features", (replace(base, method="UPGrad()"),)),
            Treatment("PCGrad, exact", (replace(base, method="PCGrad()", surface="parameters"),)),
        ),
        reference="static weights, tuned",
        baseline="single task",
    )
