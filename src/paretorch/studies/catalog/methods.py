"""Methods: which balancing method can be used without tuning it, on losses of unlike scale, dense tasks and tables?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from paretorch.core.contract import Need
from paretorch.core.method.default import DEFAULT_NAME
from paretorch.studies.study import Study, Treatment, best_of_trials, check_scale, merged
from paretorch.studies.tuning.hyperparameters import STATIC_WEIGHTS
from paretorch.studies.weight_search import static_runs
from paretorch.studies.workload_study import ON_PARAMETERS, SINGLE_TASK, SUM, one_task_at_a_time
from paretorch.training.names.constructors import Call, split_at_commas, written
from paretorch.training.names.methods import find_method
from paretorch.training.names.methods import methods as method_classes
from paretorch.training.run import Run
from paretorch.workloads.streams import Plain

SCALES = ("smoke", "small")
QUESTION = "Which balancing method can be used without tuning it?"

RATE_FACTORS = (1.0, 0.3, 3.0)  # of the learning rate of a workload: one trial each, for every treatment

# methods that wrap others, and are not treatments with their defaults
WRAPPERS = {"LogLosses": "LogLosses(MGDA())", "Momentum": "Momentum(CAGrad())", "CRMOGM": "CRMOGM(CAGrad())"}
BASELINES = ("Equal", "Static")


@dataclass(frozen=True)
class Setting:
    """A workload with what all its treatments share.

    Args:
        base: the run with the plain sum, and the first learning rate.
        tasks: the tasks.
        regression: tasks with a squared or absolute error, for ``Uncertainty``.
        weights: static weights to try; the sum is always among them.
    """

    base: Run
    tasks: tuple[str, ...]
    regression: tuple[str, ...]
    weights: tuple[Mapping[str, float], ...]


def settings_of(scale: str, device: str) -> list[Setting]:
    """The workloads: digits with a loss that is orders of magnitude larger, drawn scenes, and two medical tables."""
    smoke = scale == "smoke"
    digits: dict[str, Plain] = {"train": 256, "validation": 128, "test": 128} if smoke else {"train": 4_000}
    scenes: dict[str, Plain] = {
        "normals": False,
        "size": 32,
        "objects": 2,
        "encoder": "resnet18",
        "width": 0.125,
        "train": 64 if smoke else 400,
        "validation": 32 if smoke else 200,
        "test": 32 if smoke else 400,
    }
    run = partial(Run, schedule="cosine", device=device)

    def epochs(number: int) -> int:
        return 1 if smoke else number

    digit_tasks = ("left", "right", "ink")
    scene_tasks = ("classification", "segmentation", "depth", "detection")
    settings = [
        Setting(
            run("digits", {"ink": True, **digits}, optimizer_options={"lr": 1e-2}, epochs=epochs(15), batch_size=128),
            digit_tasks,
            ("ink",),
            # powers of ten around 0.001, with which the squared error of the ink is as large as a cross-entropy
            tuple({"left": 1.0, "right": 1.0, "ink": 10.0**-power} for power in range(1, 6)),
        ),
        Setting(
            run("scenes", scenes, optimizer_options={"lr": 5e-3}, epochs=epochs(15), batch_size=32),
            scene_tasks,
            ("depth", "detection"),
            one_task_at_a_time(scene_tasks),
        ),
    ]
    columns = ("worst_texture", "worst_smoothness", "worst_symmetry")
    for table, classes, regression, rate in (
        ("diabetes", (), ("progression", "bmi", "bp"), 5e-3),
        ("breast_cancer", ("diagnosis",), columns, 1e-2),
    ):
        base = run("tabular", {"table": table}, optimizer_options={"lr": rate}, epochs=epochs(25), batch_size=64)
        tasks = (*classes, *regression)
        settings.append(Setting(base, tasks, regression, one_task_at_a_time(tasks)))
    return settings


def study(scale: str, methods: str = "", device: str = "cpu") -> Study:
    """Balancing methods with their defaults on four workloads, with the plain sum, tuned static weights and single tasks.

    A treatment has three trials, which differ in the learning rate alone; static weights have three for each of their settings.
    The workloads are overlaid digits with a loss that is orders of magnitude larger, drawn scenes with four dense and sparse
    tasks, and two medical tables with standardised targets. A method that compares gradients is a treatment on the features and
    another on the shared parameters.

    Args:
        scale: ``"smoke"`` (seconds, without meaning) or ``"small"`` (about an hour on two cores).
        methods: constructors with a comma between, ``"IMTLG(), CAGrad(c=0.2)"``; every method if empty.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale or method.
    """
    check_scale("methods", scale, SCALES)
    texts = split_at_commas(methods) or all_methods()
    for text in texts:
        find_method(text)
    studies = []
    for setting in settings_of(scale, device):
        treatments = (*_baselines(setting), *_treatments(setting, texts))
        studies.append(against_static_weights("methods", QUESTION, treatments))
    return merged("methods", QUESTION, studies)


def against_static_weights(name: str, question: str, treatments: tuple[Treatment, ...]) -> Study:
    """A study of treatments that include single tasks, the plain sum, and tuned static weights, which are the reference."""
    return Study(
        name=name,
        question=question,
        treatments=treatments,
        reference=STATIC_WEIGHTS,
        baseline=SINGLE_TASK,
        plain_sum=SUM,
        recommended=DEFAULT_NAME if any(each.label == DEFAULT_NAME for each in treatments) else "",
    )


def tuned_baselines(
    base: Run, tasks: Sequence[str], weights: Iterable[Mapping[str, float]], at_rates: Callable[[Run], Iterable[Run]]
) -> Iterator[Treatment]:
    """Single tasks, the plain sum, and static weights, each with a trial at every learning rate.

    Args:
        base: the run with the plain sum.
        tasks: of the workload.
        weights: static weights to try.
        at_rates: gives a run with each of the learning rates.
    """
    single = [replace(base, tasks=(task,)) for task in tasks]
    yield best_of_trials(SINGLE_TASK, [run for task in single for run in at_rates(task)])
    yield best_of_trials(SUM, at_rates(base))
    yield best_of_trials(STATIC_WEIGHTS, [run for each in static_runs(base, weights) for run in at_rates(each)])


def with_kinds(text: str, regression: Sequence[str]) -> str:
    """The method; ``Uncertainty`` with the kinds of the tasks that have a squared or absolute error.

    Example:
        >>> with_kinds("Uncertainty()", ["depth"]), with_kinds("MGDA()", ["depth"])
        ("Uncertainty(kinds={'depth': 'regression'})", 'MGDA()')
    """
    if text != "Uncertainty()" or not regression:
        return text
    return written(Call("Uncertainty", (), {"kinds": dict.fromkeys(regression, "regression")}))


def all_methods() -> list[str]:
    """Every method with its defaults that takes one batch per step."""
    return [
        WRAPPERS.get(name, f"{name}()")
        for name, cls in method_classes().items()
        if name not in BASELINES and cls.batches == 1
    ]


def _rates(run: Run) -> Iterator[Run]:
    rate = float(run.optimizer_options["lr"])  # type: ignore[arg-type]
    for factor in RATE_FACTORS:
        yield replace(run, optimizer_options={**run.optimizer_options, "lr": round(factor * rate, 9)})


def _baselines(setting: Setting) -> Iterable[Treatment]:
    return tuned_baselines(setting.base, setting.tasks, [dict.fromkeys(setting.tasks, 1.0), *setting.weights], _rates)


def _treatments(setting: Setting, texts: Sequence[str]) -> Iterable[Treatment]:
    for text in texts:
        method = find_method(text)
        label = text.removesuffix("()")
        run = replace(setting.base, method=with_kinds(text, setting.regression))
        if method.features:
            yield best_of_trials(label, _rates(run))
        if method.needs & (Need.GRAMIAN | Need.JACOBIAN):
            yield best_of_trials(label + ON_PARAMETERS, _rates(replace(run, surface="parameters")))
