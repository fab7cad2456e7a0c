"""Leaderboard: do balancing methods beat static weights that are tuned at the same cost?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from paretorch.studies.catalog import mgda
from paretorch.studies.catalog.methods import against_static_weights, all_methods, settings_of, with_kinds
from paretorch.studies.study import Combine, Study, Treatment, check_scale, merged
from paretorch.studies.trial_plan import Sampled
from paretorch.studies.tuning.hyperparameters import STATIC_WEIGHTS
from paretorch.studies.workload_study import ON_PARAMETERS, SINGLE_TASK, SUM
from paretorch.training.names.constructors import Call, split_at_commas, written
from paretorch.training.names.methods import find_method
from paretorch.training.names.workloads import find_workload
from paretorch.training.run import Run
from paretorch.workloads.streams import Plain

SCALES = ("smoke", "small", "paper")
QUESTION = "Does a balancing method beat static weights that are tuned at the same cost?"
SHORTER: Mapping[str, tuple[Mapping[str, Plain], int]] = {  # by workload or table: sizes of the splits, and epochs
    "digits": ({"train": 3_000}, 9),
    "scenes": ({}, 7),
    "multimnist": ({"train": 4_000, "validation": 1_000}, 5),
    "yeast": ({}, 12),
    "qm9": ({"train": 600, "validation": 200, "test": 500}, 6),
}
TRIALS = 5  # of every treatment on every workload; of single tasks for each task


def study(scale: str, methods: str = "", root: str = "data", device: str = "cpu") -> Study:
    """Every method on the shipped workloads, each tuned with the same number of trials, compared with tuned static weights.

    A trial is a whole run with a learning rate and own options of the method from their declared ranges; the first has the
    defaults. Trials are selected on validation data, with a seed that no run of the study has. A method is on the features
    where it can be, else on the shared parameters. Static weights have a trial budget as every method, and their own options
    are the weights of the tasks.

    Scale ``"small"`` has digits with a squared error of another scale, overlaid digits of MNIST, drawn scenes with dense tasks,
    molecules, and four tables; ``"paper"`` the published protocols of MultiMNIST, CelebA, Cityscapes, NYUv2 and QM9.

    Args:
        scale: ``"smoke"`` (minutes, without meaning), ``"small"`` (about two hours on two cores with ten seeds) or ``"paper"``.
        methods: constructors with a comma between; every method if empty.
        root: folder of the published data sets, for ``"paper"``.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale or method.
    """
    check_scale("leaderboard", scale, SCALES)
    texts = split_at_commas(methods) or all_methods()
    for text in texts:
        find_method(text)
    plan = Sampled(2 if scale == "smoke" else TRIALS)
    studies = []
    for base, regression in _bases(scale, root, device):
        treatments = (*_baselines(base, plan), *_treatments(base, regression, texts, plan))
        studies.append(against_static_weights("leaderboard", QUESTION, treatments))
    return merged("leaderboard", QUESTION, studies)


def _bases(scale: str, root: str, device: str) -> Iterator[tuple[Run, tuple[str, ...]]]:
    """The run with the plain sum on each workload, and the tasks with a squared or absolute error."""
    settings = mgda.published(root) if scale == "paper" else _small(scale, device)
    for base, regression in settings:
        yield replace(base, device=device), regression


def _small(scale: str, device: str) -> Iterator[tuple[Run, tuple[str, ...]]]:
    is_smoke = scale == "smoke"
    settings = [(setting.base, setting.regression) for setting in settings_of(scale, device)]
    settings += [each for each in mgda.small(is_smoke) if each[0].workload != "scenes"]
    for base, regression in settings:
        yield base if is_smoke else _shorter(base), regression
    flares: dict[str, Plain] = {"table": "solar_flare"}
    epochs = 1 if is_smoke else 25
    run = Run("tabular", flares, optimizer_options={"lr": 1e-2}, epochs=epochs, batch_size=64, schedule="cosine")
    yield run, find_workload("tabular", flares).tasks


def _shorter(base: Run) -> Run:
    """The run on fewer samples, for fewer epochs: a leaderboard has ten times the runs of other studies."""
    sizes, epochs = SHORTER.get(str(base.options.get("table", base.workload)), ({}, base.epochs))
    return replace(base, options={**base.options, **sizes}, epochs=epochs)


def _baselines(base: Run, plan: Sampled) -> Iterator[Treatment]:
    tasks = find_workload(base.workload, base.options).tasks
    yield _tuned(SINGLE_TASK, [replace(base, tasks=(task,)) for task in tasks], plan)
    yield _tuned(SUM, [base], plan)
    static = written(Call("Static", (), {"weights": dict.fromkeys(tasks, 1.0)}))
    yield _tuned(STATIC_WEIGHTS, [replace(base, method=static)], plan)


def _treatments(base: Run, regression: tuple[str, ...], texts: Sequence[str], plan: Sampled) -> Iterator[Treatment]:
    for text in texts:
        is_on_features = find_method(text).features
        label = text.removesuffix("()") + ("" if is_on_features else ON_PARAMETERS)
        surface = "features" if is_on_features else "parameters"
        yield _tuned(label, [replace(base, method=with_kinds(text, regression), surface=surface)], plan)


def _tuned(label: str, runs: Sequence[Run], plan: Sampled) -> Treatment:
    return Treatment(label, tuple(runs), Combine.TUNE, plan=plan)
