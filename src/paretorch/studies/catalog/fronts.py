"""Fronts: how fast do ways of training a set of models cover the trade-off, and does transfer between them help?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from paretorch.studies.study import Study, Treatment, check_scale, merged
from paretorch.training.run import Plain, Run

QUESTION = (
    "Which way of training a set of models covers the trade-off best, and how much faster does transfer get there?"
)
REFERENCE = "MT2O, no transfer"
SCALES = ("smoke", "small", "paper")

# by label: the constructor of the algorithm, and options of the front that differ
Algorithms = Mapping[str, tuple[str, Mapping[str, Plain]]]
# the run on a workload with the options that all algorithms share, and the algorithms in addition to ALGORITHMS
Problem = tuple[Run, Algorithms]

INDEPENDENT_STARTS: Mapping[str, Plain] = {"starts": "independent"}
REFERENCE_POINT: Plain = [2.5, 2.5]  # slightly above the losses of untrained networks on images

# on every problem; the first is the reference
ALGORITHMS: Algorithms = {
    REFERENCE: ("MT2O(transfer=None)", {}),
    "MT2O, gated": ("MT2O()", {}),
    "MT2O, neighbours": ("MT2O(transfer=Neighbours())", {}),
    "MT2O, gated, moving preferences": ("MT2O(adapt='hypervolume')", {}),
    "weighted sums": ("Sweep()", {}),
    "Pareto MTL": ("ParetoMTL()", {}),
    "EPO": ("EPO()", {}),
    "hypervolume ascent": ("HypervolumeAscent()", INDEPENDENT_STARTS),
    "MGDA from N starts": ("MGDAStarts()", INDEPENDENT_STARTS),
}
# the cost of independent initial weights, and the effect of transfer on it
FROM_INDEPENDENT_STARTS: Algorithms = {
    "MT2O, no transfer, N starts": ("MT2O(transfer=None)", INDEPENDENT_STARTS),
    "MT2O, gated, N starts": ("MT2O()", INDEPENDENT_STARTS),
}
# one network for all preferences
CONDITIONAL: Algorithms = {"COSMOS": ("COSMOS()", {})}
# as expensive per step as many models of a small network
LARGE_CONDITIONAL: Algorithms = {
    "PHN-LS": ("PHNLS(hidden=32)", {}),
    "PaMaL": ("PaMaL()", {}),
}
# without gradients: only for points with few coordinates in a box
EVOLUTIONARY: Algorithms = {"NSGA-II": ("NSGA2(population=40)", INDEPENDENT_STARTS)}
SINGLE_TASK = "single task"

DIGITS: Mapping[str, dict[str, Plain]] = {
    "smoke": {"train": 256, "validation": 128, "test": 128},
    "small": {"train": 2048, "validation": 512, "test": 1024},
}
# a residual network learns both tasks in a hundred steps, a mobile network of that size does not
SCENES: dict[str, Plain] = {
    "depth": False,
    "normals": False,
    "detection": False,
    "size": 32,
    "objects": 2,
    "hue_spread": 0.04,
    "encoder": "resnet18",
    "width": 0.15,
}
SCENES_SIZES: Mapping[str, dict[str, Plain]] = {
    "smoke": {"train": 64, "validation": 32, "test": 32},
    "small": {"train": 384, "validation": 128, "test": 256},
}


def study(scale: str, root: str = "data", device: str = "cpu") -> Study:
    """Algorithms for fronts on problems with known fronts and on images.

    Args:
        scale: ``"smoke"`` (seconds, without meaning), ``"small"`` (about four minutes per seed on two cores) or ``"paper"``
            (MultiMNIST and NYUv2 from their files).
        root: folder of the data of ``"paper"``.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale.
    """
    check_scale("fronts", scale, SCALES)
    problems = _published(root) if scale == "paper" else [*_points(scale), *_regressions(scale), *_images(scale)]
    return merged("fronts", QUESTION, [_study(replace(run, device=device), more) for run, more in problems])


def _points(scale: str) -> Iterator[Problem]:
    """Problems with a known front and cheap gradients: algorithms differ in the number of gradients that they need."""
    epochs, models = {"smoke": (6, 4), "small": (200, 10)}[scale]
    options: dict[str, Plain] = {"models": models, "execution": "vmap"}
    base = Run("synthetic", optimizer="SGD", optimizer_options={"lr": 0.1}, epochs=epochs)
    vlmop2 = replace(base, options={"problem": "vlmop2"}, front_options=options, front="MT2O()")
    yield vlmop2, {**FROM_INDEPENDENT_STARTS, **EVOLUTIONARY}
    count = {"smoke": 6, "small": 10}[scale]
    dtlz2 = replace(vlmop2, options={"problem": "dtlz2"}, front_options={**options, "models": count})
    yield dtlz2, {**FROM_INDEPENDENT_STARTS, **EVOLUTIONARY}


def _regressions(scale: str) -> Iterator[Problem]:
    """Two targets of one feature, with almost parallel and with almost orthogonal gradients."""
    epochs, models = {"smoke": (2, 3), "small": (30, 8)}[scale]
    base = Run(
        "synthetic",
        optimizer="Adam",
        optimizer_options={"lr": 5e-3},
        epochs=epochs,
        batch_size=64,
        front="MT2O()",
        front_options={"models": models, "execution": "vmap"},
    )
    for conflict in (20.0, 75.0):
        yield (
            replace(base, options={"conflict": conflict}),
            {**FROM_INDEPENDENT_STARTS, **CONDITIONAL, **LARGE_CONDITIONAL},
        )


def _images(scale: str) -> Iterator[Problem]:
    digits_epochs, scenes_epochs = {"smoke": (1, 1), "small": (12, 7)}[scale]
    digits_models, scenes_models = {"smoke": (2, 2), "small": (5, 3)}[scale]
    options: dict[str, Plain] = {"reference": REFERENCE_POINT}
    digits = Run(
        "digits",
        options=DIGITS[scale],
        optimizer_options={"lr": 5e-3},
        epochs=digits_epochs,
        batch_size=128,
        front="MT2O()",
        front_options={**options, "models": digits_models, "execution": "vmap"},
    )
    yield digits, {**FROM_INDEPENDENT_STARTS, **CONDITIONAL}
    yield (
        replace(
            digits,
            workload="scenes",
            options={**SCENES, **SCENES_SIZES[scale]},
            optimizer_options={"lr": 3e-3},
            epochs=scenes_epochs,
            batch_size=32,
            front_options={**options, "models": scenes_models, "execution": "loop"},
        ),
        CONDITIONAL,
    )


def _published(root: str) -> Iterator[Problem]:
    """The protocols of the literature on the published files."""
    digits = Run(
        "multimnist",
        options={"root": root},
        optimizer="SGD",
        optimizer_options={"lr": 1e-3, "momentum": 0.9},
        epochs=100,
        batch_size=256,
        front="MT2O()",
        front_options={"models": 10, "reference": [2.0, 2.0]},
    )
    yield digits, {**FROM_INDEPENDENT_STARTS, **CONDITIONAL}
    rooms = Run(
        "nyuv2",
        options={"root": root, "architecture": "segnet"},
        optimizer_options={"lr": 1e-4},
        epochs=200,
        batch_size=2,
        front="MT2O()",
        front_options={"models": 10, "reference": [2.6, 1.5, 1.0]},
    )
    yield rooms, CONDITIONAL


def _study(base: Run, more: Algorithms) -> Study:
    """The study on one workload."""
    treatments = [
        Treatment(label, (replace(base, front=algorithm, front_options={**base.front_options, **options}),))
        for label, (algorithm, options) in {**ALGORITHMS, **more}.items()
    ]
    treatments.append(Treatment(SINGLE_TASK, (_single_task(base),)))
    return Study(
        name="fronts", question=QUESTION, treatments=tuple(treatments), reference=REFERENCE, baseline=REFERENCE
    )


def _single_task(base: Run) -> Run:
    """The run of one model for each task, trained on that task alone."""
    tasks = 3 if base.workload == "nyuv2" or base.options.get("problem") == "dtlz2" else 2
    preferences: list[Plain] = [[float(row == column) for column in range(tasks)] for row in range(tasks)]
    kept = {name: value for name, value in base.front_options.items() if name != "models"}
    return replace(base, front="Sweep()", front_options={**kept, "preferences": preferences})
