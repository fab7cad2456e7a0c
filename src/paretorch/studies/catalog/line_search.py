"""Line search: is a searched step size as good as the best of eight fixed ones, and what does it cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paretorch.studies.study import Study, Treatment, best_of_grid, check_scale, merged, single_task
from paretorch.training.run import Plain, Run
from paretorch.workloads.formats.cifar import CLASSES

NAME = "line-search"
SCALES = ("smoke", "small", "paper")
QUESTION = "Is a searched step size as good as the best of eight fixed ones, and what does it cost?"
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1)
ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
BEST_RATE = "SGD, features, best of 8 rates"
SINGLE_TASK = "single task, Adam"
CLASSICAL = "classical"
AUTOMATIC = "fast, linearised, regression"
MAIN = (BEST_RATE, "Adam, default", "fast, as published", "fast, default", AUTOMATIC)  # on expensive workloads
PUBLISHED_BOUND = 1.0  # largest step of the search as published; the other searches adapt their bound
VERIFY = 20  # steps between two verifications with a full forward pass

TASKS = {"digits": ("left", "right"), "scenes": ("classification", "segmentation"), "multimnist": ("left", "right"),
         "cifar10": CLASSES, "cityscapes": ("segmentation", "instance", "depth")}  # fmt: skip
SCENES: dict[str, Plain] = {
    "depth": False, "normals": False, "detection": False, "size": 32, "objects": 2, "train": 512, "validation": 128,
    "test": 256, "encoder": "resnet18", "width": 0.125, "stride": 8,
}  # fmt: skip
STREETS: dict[str, Plain] = {
    "form": "images", "height": 512, "augmentation": "rotate", "architecture": "dilated_resnet50", "classes_of": 19,
}  # fmt: skip
SMOKE: dict[str, Plain] = {"train": 256, "validation": 128, "test": 128}


def study(scale: str, root: str = "data", device: str = "cpu") -> Study:
    """Fixed steps tuned on validation data, and searches without tuning. All balance with MGDA except the plain sum.

    Args:
        scale: ``"smoke"`` (seconds, without meaning): ``digits``; ``"small"``: ``digits``, and the main treatments on
            ``scenes``; ``"paper"``: ``multimnist`` and ``cifar10``, and the main treatments on ``cityscapes``, from their
            published files.
        root: folder of those files.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale.
    """
    check_scale(NAME, scale, SCALES)
    if scale == "smoke":
        return _study(Run("digits", SMOKE, batch_size=64, epochs=1, device=device), window=20)
    if scale == "small":
        digits = _study(Run("digits", batch_size=64, epochs=10, device=device), window=100)
        scenes = _study(Run("scenes", SCENES, batch_size=32, epochs=10, device=device), window=50, labels=MAIN)
        return merged(NAME, QUESTION, (digits, scenes))
    paper: dict[str, Any] = {"epochs": 100, "device": device}
    mnist = _study(Run("multimnist", {"root": root}, batch_size=256, **paper), window=200)
    cifar = _study(Run("cifar10", {"root": root}, batch_size=256, **paper), window=200)
    streets = _study(Run("cityscapes", {"root": root, **STREETS}, batch_size=8, **paper), window=200, labels=MAIN)
    return merged(NAME, QUESTION, (mnist, cifar, streets))


def _study(run: Run, window: int, labels: Sequence[str] = ()) -> Study:
    """The study with all fixed steps and all searches, or with those that have the labels."""
    base = replace(run, method="MGDA()", optimizer="SGD", optimizer_options={"lr": 0.1})
    every = (*_fixed_steps(base), *_gradient_searches(base, window), *_direction_searches(base, window))
    treatments = [treatment for treatment in every if not labels or treatment.label in labels]
    adam = replace(base, method="Equal()", optimizer="Adam", optimizer_options={"lr": 1e-3})
    single = single_task(SINGLE_TASK, adam, TASKS[base.workload])
    return Study(NAME, QUESTION, (single, *treatments), reference=BEST_RATE, baseline=SINGLE_TASK)


def _fixed_steps(base: Run) -> tuple[Treatment, ...]:
    """SGD with the best of eight rates in three variants; Adam with the best of six and with its default."""
    exact = replace(base, surface="parameters")
    total = replace(base, method="Equal()")
    adam = replace(base, optimizer="Adam")

    def rates(run: Run, values: tuple[float, ...] = RATES) -> list[Run]:
        return [replace(run, optimizer_options={"lr": rate}) for rate in values]

    return (
        best_of_grid("SGD, sum, best of 8 rates", rates(total)),
        best_of_grid("SGD, parameters, best of 8 rates", rates(exact)),
        best_of_grid(BEST_RATE, rates(base)),
        best_of_grid("Adam, best of 6 rates", rates(adam, ADAM_RATES)),
        Treatment("Adam, default", (replace(adam, optimizer_options={"lr": 1e-3}),)),
    )


def _gradient_searches(base: Run, window: int) -> tuple[Treatment, ...]:
    """Searches along the balanced gradient."""
    linearised: dict[str, Plain] = {"displacement": "linearised"}
    regression = _bound("regression", window=window)
    return (
        _search(base, CLASSICAL),
        _search(base, "fast, as published", displacement="gradient", max_step=PUBLISHED_BOUND, shrink=0.5),
        _search(base, "fast, default"),
        _search(base, "fast, linearised, fixed bound", **linearised),
        _search(base, "fast, linearised, manual bound", bound=_bound("manual", every=4), **linearised),
        _search(base, AUTOMATIC, bound=regression, **linearised),
        _search(base, "fast, linearised, SASA+", bound=_bound("sasa", window=window), **linearised),
        _search(base, "fast, linearised, non-monotone", bound=regression, memory="nonmonotone", **linearised),
        _search(base, "fast, linearised, halving", bound=regression, shrink=0.5, **linearised),
    )


def _direction_searches(base: Run, window: int) -> tuple[Treatment, ...]:
    """Searches along the directions of adaptive and second-order methods, whose step sizes have other scales."""
    options: dict[str, Plain] = {"displacement": "linearised", "bound": _bound("regression", window=window)}
    directions = {
        "momentum": "SGD(lr=0.1, momentum=0.9)",
        "Adam": "Adam",
        "Adam without momentum": "Adam(betas=(0.0, 0.999))",
        "AdamW": "AdamW",
        "RMSprop": "RMSprop",
        "Adagrad": "Adagrad",
        "Muon": "Orthogonal()",
        "Kronecker": "Kronecker()",
    }
    return (
        *(
            _search(base, f"fast, linearised, {name}", direction=direction, **options)
            for name, direction in directions.items()
        ),
        _search(base, "classical, L-BFGS", direction="LBFGS()"),
    )


def _search(base: Run, label: str, /, **options: Plain) -> Treatment:
    optimizer = "Backtracking" if label.startswith(CLASSICAL) else "FastBacktracking"
    given: Mapping[str, Plain] = {**options, "verify": VERIFY}
    return Treatment(label, (replace(base, optimizer=optimizer, optimizer_options=given),))


def _bound(rule: str, **options: Plain) -> str:
    """An upper bound of the step as a constructor."""
    return f"UpperBound({', '.join([repr(rule), *(f'{name}={value!r}' for name, value in options.items())])})"
