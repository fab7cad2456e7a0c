"""Line search: is a step size that nobody tuned as good as the best of eight that somebody did?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paretorch.studies.study import Study, Treatment, alone, chosen
from paretorch.training.spec import Plain, Run

QUESTION = "Is a searched step size as good as the best of eight fixed ones, and what does it cost?"
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1)
ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNED = "SGD, features, best of 8 rates"
ALONE = "single task, Adam"
TASKS = {"digits": ("left", "right"), "scenes": ("classification", "segmentation")}

OPTIONS: Mapping[str, dict[str, Plain]] = {"smoke": {"train": 256, "validation": 128, "test": 128}, "small": {}}
EPOCHS = {"smoke": 1, "small": 12}
BOUNDS = {"smoke": 20, "small": 100}  # steps that the automatic rules look at

SCENES: dict[str, Plain] = {
    "depth": False, "normals": False, "detection": False, "size": 32, "objects": 2, "train": 512, "validation": 128,
    "test": 256, "width": 0.35, "stride": 8,
}  # fmt: skip


def study(scale: str, workload: str = "digits") -> Study:
    """Fixed steps, tuned, beside searches that nobody tunes; all balance by MGDA but the plain sum.

    Args:
        scale: ``"smoke"`` (seconds, says nothing) or ``"small"``.
        workload: ``"digits"``, or ``"scenes"`` for a short look at another.

    Raises:
        ValueError: the scale or the workload is not known.
    """
    if scale not in EPOCHS:
        raise ValueError(f"scales of line-search are {sorted(EPOCHS)}, got {scale!r}")
    if workload not in ("digits", "scenes"):
        raise ValueError(f"line-search is on 'digits' or 'scenes', got {workload!r}")
    size = {"digits": 256, "scenes": 32}[workload] if scale == "small" else 64
    options = OPTIONS[scale] if workload == "digits" else {**SCENES, **OPTIONS[scale]}
    base = Run(
        workload,
        options=options,
        method="MGDA()",
        optimizer="SGD",
        optimizer_options={"lr": 0.1},
        epochs=EPOCHS[scale],
        batch_size=size,
    )
    return Study(
        name="line-search",
        question=QUESTION,
        treatments=(alone(ALONE, _adam(base), TASKS[workload]), *_fixed(base), *_searched(base, BOUNDS[scale])),
        reference=TUNED,
        baseline=ALONE,
    )


def _adam(base: Run) -> Run:
    """The sum, by Adam at its default."""
    return replace(base, method="Equal()", optimizer="Adam", optimizer_options={"lr": 1e-3})


def _fixed(base: Run) -> tuple[Treatment, ...]:
    """The three baselines over eight rates, Adam over six and at its default."""
    exact = replace(base, surface="parameters")
    total = replace(base, method="Equal()")
    adam = replace(base, optimizer="Adam")

    def rates(run: Run, values: tuple[float, ...] = RATES) -> list[Run]:
        return [replace(run, optimizer_options={"lr": rate}) for rate in values]

    return (
        chosen("SGD, sum, best of 8 rates", rates(total)),
        chosen("SGD, parameters, best of 8 rates", rates(exact)),
        chosen(TUNED, rates(base)),
        chosen("Adam, best of 6 rates", rates(adam, ADAM_RATES)),
        Treatment("Adam, default", (replace(adam, optimizer_options={"lr": 1e-3}),)),
    )


def _searched(base: Run, window: int) -> tuple[Treatment, ...]:
    """The searches: nothing in them is tuned."""

    def search(label: str, **options: Plain) -> Treatment:
        return Treatment(label, (replace(base, optimizer="FastBacktracking", optimizer_options=options),))

    def bound(rule: str, **options: Plain) -> str:
        return f"UpperBound({', '.join([repr(rule), *(f'{name}={value!r}' for name, value in options.items())])})"

    linearised: dict[str, Plain] = {"displacement": "linearised", "samples": 0.125}
    regression = bound("regression", window=window)
    return (
        Treatment("classical", (replace(base, optimizer="Backtracking", optimizer_options={}),)),
        search("fast, gradient, from 1", displacement="gradient", max_step=1.0),
        search("fast, difference"),
        search("fast, linearised, fixed bound", **linearised),
        search("fast, linearised, manual bound", bound=bound("manual", every=4), **linearised),
        search("fast, linearised, regression", bound=regression, **linearised),
        search("fast, linearised, SASA+", bound=bound("sasa", window=window), **linearised),
        search("fast, linearised, Adam, regression", bound=regression, direction="Adam", **linearised),
        search("fast, linearised, RMSprop", direction="RMSprop", **linearised),
        search("fast, linearised, momentum", direction="SGD(lr=0.1, momentum=0.9)", **linearised),
        search("fast, linearised, Kronecker", direction="Kronecker()", **linearised),
    )
