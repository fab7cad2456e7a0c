"""Quickstart: does balancing help on real digits, when one of three losses is orders of magnitude larger?"""

from __future__ import annotations

from dataclasses import replace

from paretorch.core.method.default import DEFAULT_NAME
from paretorch.studies.study import Study, Treatment, best_of_grid, check_scale, single_task
from paretorch.training.run import Run
from paretorch.workloads.streams import Plain

SCALES = ("smoke", "small")
TASKS = ("left", "right", "ink")
OPTIONS: dict[str, dict[str, Plain]] = {
    "smoke": {"ink": True, "train": 512, "validation": 256, "test": 256},
    "small": {"ink": True, "train": 4_000},
}
EPOCHS = {"smoke": 1, "small": 15}

# powers of ten around 0.001, with which the squared error of the ink is as large as a cross-entropy; the sum has 1
INK_WEIGHTS = (0.1, 0.01, 0.001, 0.0001, 0.00001)

SUM, CEILING, TUNED = "plain sum", "single tasks (ceiling)", "static weights, tuned"

AFTER = """What next, on a model of your own:

  fork = pt.Fork(tasks=("left", "right"))       # once, with the model
  branch = fork(encoder(x))                     # after the encoder: one branch for each head
  sum(losses.values()).backward()               # as before: the Fork balances inside

  paretorch diagnose my_workload.py             # do the tasks conflict, and what would help?
  paretorch study my_workload.py                # the comparison above, on your data"""


def study(scale: str) -> Study:
    """Six ways of training one network on two digits and the amount of ink, and a network for each task.

    Args:
        scale: ``"smoke"`` (seconds, without meaning) or ``"small"`` (two to three minutes on two cores).

    Raises:
        ValueError: an unknown scale.
    """
    check_scale("quickstart", scale, SCALES)
    base = Run(
        "digits",
        options=OPTIONS[scale],
        optimizer_options={"lr": 1e-2},
        epochs=EPOCHS[scale],
        batch_size=128,
        schedule="cosine",
    )
    weights = [{"left": 1.0, "right": 1.0, "ink": weight} for weight in INK_WEIGHTS]
    ceiling = single_task(CEILING, base, TASKS)

    def treatment(name: str, note: str = "") -> Treatment:
        return Treatment(name, (replace(base, method=f"{name}()"),), note=note)

    return Study(
        name="quickstart",
        question="Two digits and a loss orders of magnitude larger: which way of training gives the best network?",
        treatments=(
            replace(ceiling, note="three networks instead of one, each for its task alone"),
            Treatment(SUM, (base,), note="the ink's loss dominates the gradient, and the digits are hardly learned"),
            best_of_grid(TUNED, (replace(base, method=f"Static({w})") for w in weights)),
            treatment(DEFAULT_NAME, "recommended where nothing is known about the losses"),
            treatment("SmoothTchebycheff"),
            treatment("FAMO"),
            treatment("MGDA", "gives the largest gradient the smallest weight: the ink is hardly learned"),
        ),
        reference=TUNED,
        baseline=CEILING,
        plain_sum=SUM,
        recommended=DEFAULT_NAME,
    )
