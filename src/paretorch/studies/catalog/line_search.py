"""Line search: is a step size that nobody tuned as good as the best of eight that somebody did?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paretorch.studies.study import Study, Treatment, across, alone, chosen
from paretorch.training.run import Plain, Run
from paretorch.workloads.formats.cifar import CLASSES

NAME = "line-search"
QUESTION = "Is a searched step size as good as the best of eight fixed ones, and what does it cost?"
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1)
ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNED = "SGD, features, best of 8 rates"
ALONE = "single task, Adam"
CLASSICAL = "classical"
AUTOMATIC = "fast, linearised, regression"
LARGEST = 1.0  # the thesis's bound, in the search as it was published; the others find theirs
VERIFY = 20  # steps from one true forward to the next

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
    """Fixed steps, tuned on validation data, beside searches in which nothing is tuned; all balance by MGDA but the plain sum.

    Args:
        scale: ``"smoke"`` (seconds, says nothing): ``digits``; ``"small"``: ``digits``, and in short ``scenes``; ``"paper"``:
            ``multimnist`` and ``cifar10``, and in short ``cityscapes``, from their published files.
        root: the folder of those files.
        device: of all runs.

    Raises:
        ValueError: the scale is not known.
    """
    if scale == "smoke":
        return _whole(Run("digits", SMOKE, batch_size=64, epochs=1, device=device), window=20)
    if scale == "small":
        digits = _whole(Run("digits", batch_size=64, epochs=10, device=device), window=100)
        scenes = _short(Run("scenes", SCENES, batch_size=32, epochs=10, device=device), window=50)
        return across(NAME, QUESTION, (digits, scenes))
    if scale == "paper":
        mnist = _whole(Run("multimnist", {"root": root}, batch_size=256, epochs=100, device=device), window=200)
        cifar = _whole(Run("cifar10", {"root": root}, batch_size=256, epochs=100, device=device), window=200)
        streets = _short(
            Run("cityscapes", {"root": root, **STREETS}, batch_size=8, epochs=100, device=device), window=200
        )
        return across(NAME, QUESTION, (mnist, cifar, streets))
    raise ValueError(f"scales of line-search are 'smoke', 'small' and 'paper', got {scale!r}")


def _whole(run: Run, window: int) -> Study:
    """Every baseline and every search."""
    base = replace(run, method="MGDA()", optimizer="SGD", optimizer_options={"lr": 0.1})
    return _study(base, (*_fixed(base), *_searched(base, window), *_directed(base, window)))


def _short(run: Run, window: int) -> Study:
    """The baseline to which all are compared, Adam, and the searches along the gradient."""
    base = replace(run, method="MGDA()", optimizer="SGD", optimizer_options={"lr": 0.1})
    labels = (TUNED, "Adam, default", "fast, as published", "fast, default", AUTOMATIC)
    treatments = [t for t in (*_fixed(base), *_searched(base, window)) if t.label in labels]
    return _study(base, treatments)


def _study(base: Run, treatments: Sequence[Treatment]) -> Study:
    adam = replace(base, method="Equal()", optimizer="Adam", optimizer_options={"lr": 1e-3})
    single = alone(ALONE, adam, TASKS[base.workload])
    return Study(NAME, QUESTION, (single, *treatments), reference=TUNED, baseline=ALONE)


def _fixed(base: Run) -> tuple[Treatment, ...]:
    """The three baselines over eight rates, Adam over six and at its default; rates are chosen on validation data."""
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
    """Searches along the balanced gradient."""
    linearised: dict[str, Plain] = {"displacement": "linearised"}
    regression = _bound("regression", window=window)
    return (
        _search(base, CLASSICAL),
        _search(base, "fast, as published", displacement="gradient", max_step=LARGEST, shrink=0.5),
        _search(base, "fast, default"),
        _search(base, "fast, linearised, fixed bound", **linearised),
        _search(base, "fast, linearised, manual bound", bound=_bound("manual", every=4), **linearised),
        _search(base, AUTOMATIC, bound=regression, **linearised),
        _search(base, "fast, linearised, SASA+", bound=_bound("sasa", window=window), **linearised),
        _search(base, "fast, linearised, non-monotone", bound=regression, memory="nonmonotone", **linearised),
        _search(base, "fast, linearised, halving", bound=regression, shrink=0.5, **linearised),
    )


def _directed(base: Run, window: int) -> tuple[Treatment, ...]:
    """Searches along the directions of adaptive and second-order methods, whose steps are in units of their own."""
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
    """An upper bound, written as its constructor."""
    return f"UpperBound({', '.join([repr(rule), *(f'{name}={value!r}' for name, value in options.items())])})"
