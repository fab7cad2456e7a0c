"""Studies, treatments and expected ranges as frozen values.

A study is defined by a Python function ``study(scale)`` that returns a :class:`Study`. The shipped functions are the files of
``paretorch/studies/catalog``; a user's own function is in any file that ends in ``.py``.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretorch.former_names import former_names
from paretorch.storage.value_types import typed
from paretorch.studies.trial_plan import TrialPlan
from paretorch.training.run import Run


class Combine(enum.Enum):
    """How the runs of a treatment on one workload and one seed are combined into one result."""

    ONE = "one"  # a single run
    JOIN = "join"  # each run trains a subset of the tasks; the result is their union
    CHOOSE = "choose"  # the run that is best on validation data over all seeds; the cost is that of all runs
    TUNE = "tune"  # alternatives, each trained once with a seed of its own; the best on validation data is trained on all seeds


def workload_title(run: Run) -> str:
    """The workload of a run as a constructor call.

    Example:
        >>> workload_title(Run("digits", options={"ink": True}))
        'digits(ink=True)'
    """
    options = ", ".join(f"{name}={value!r}" for name, value in sorted(run.options.items()))
    return f"{run.workload}({options})" if options else run.workload


def short_workload_titles(runs: Sequence[Run]) -> dict[str, str]:
    """Short and different names for the workloads of runs, by title: the name, and those of its options that differ.

    Example:
        >>> tables = [Run("tabular", {"table": table, "header": True}) for table in ("iris", "wine")]
        >>> list(short_workload_titles([Run("scenes", {"size": 32}), *tables]).values())
        ['scenes', "tabular(table='iris')", "tabular(table='wine')"]
    """
    found = {}
    for run in runs:
        others = [other for other in runs if other.workload == run.workload and other.options != run.options]
        differing = {
            name: value
            for name, value in run.options.items()
            if any(other.options.get(name) != value for other in others)
        }
        name = Path(run.workload).stem if run.workload.endswith(".py") else run.workload
        found[workload_title(run)] = workload_title(Run(name, differing))
    return found if len(set(found.values())) == len(found) else {title: title for title in found}


@dataclass(frozen=True)
class Treatment:
    """One of the alternatives that a study compares.

    Args:
        label: name in tables and figures.
        runs: runs to train on every seed, on one or several workloads; their own seeds are replaced.
        combine: how the runs on one workload are combined into one result.
        note: what the reader of the report should know about it, one sentence: why it is there, or why it fails.
        plan: how tuned alternatives are trained; None: each once, for all epochs.

    Raises:
        ValueError: no run, a number of runs on a workload that does not match ``combine``, or a plan without tuning.

    Example:
        >>> Treatment("MGDA", (Run("digits", method="MGDA()"),)).label
        'MGDA'
    """

    label: str
    runs: tuple[Run, ...]
    combine: Combine = Combine.ONE
    note: str = ""
    plan: TrialPlan | None = None

    def __post_init__(self) -> None:
        if self.plan is not None and self.combine is not Combine.TUNE:
            raise ValueError(
                f"treatment {self.label!r}: a plan is for tuned alternatives, got {self.plan} with {self.combine.value!r}"
            )
        groups = [self.on(title) for title in self.workloads]
        counts = [len(group) for group in groups] or [0]
        single = self.combine in (Combine.ONE, Combine.TUNE)  # tuned alternatives may be one, as for single tasks
        if not all(counts) or (max(counts) > 1 and self.combine is Combine.ONE) or (max(counts) == 1 and not single):
            raise ValueError(
                f"treatment {self.label!r}: one run on a workload is combined as 'one', several as 'join', 'choose' or 'tune'; "
                f"got {' and '.join(map(str, counts))} as {self.combine.value!r}"
            )
        if self.combine is Combine.TUNE:
            groups = [tuple(alternatives[0] for alternatives in alternatives_by_tasks(group)) for group in groups]
        for group in groups if self.combine in (Combine.JOIN, Combine.TUNE) else []:
            trained = [task for run in group for task in run.tasks]
            if len(group) > 1 and (not all(run.tasks for run in group) or len(set(trained)) < len(trained)):
                raise ValueError(
                    f"treatment {self.label!r}: joined runs train disjoint tasks that each of them names, "
                    f"got {[run.tasks for run in group]}; see single_task()"
                )

    @property
    def workloads(self) -> tuple[str, ...]:
        """Titles of the workloads of the runs."""
        return tuple(dict.fromkeys(map(workload_title, self.runs)))

    def on(self, workload: str) -> tuple[Run, ...]:
        """The runs on the workload with that title."""
        return tuple(run for run in self.runs if workload_title(run) == workload)

    def seeded(self, seed: int) -> tuple[Run, ...]:
        """The runs with one seed."""
        return tuple(dataclasses.replace(run, seed=seed) for run in self.runs)


def alternatives_by_tasks(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """The runs of a tuned treatment on one workload: alternatives train the same tasks, others are joined."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.tasks, []).append(run)
    return [tuple(group) for group in groups.values()]


def single_task(label: str, base: Run, tasks: Iterable[str]) -> Treatment:
    """The single-task baseline: one run per task, with joined results.

    Example:
        >>> [run.tasks for run in single_task("single task", Run("digits"), ("left", "right")).runs]
        [('left',), ('right',)]
    """
    runs = tuple(dataclasses.replace(base, tasks=(task,)) for task in tasks)
    return Treatment(label, runs, Combine.JOIN if len(runs) > 1 else Combine.ONE)


def best_of_grid(label: str, runs: Iterable[Run]) -> Treatment:
    """A grid of runs; its result is that of the run with the lowest mean Delta m on validation data over all seeds."""
    return Treatment(label, tuple(runs), Combine.CHOOSE)


def best_of_trials(label: str, runs: Iterable[Run]) -> Treatment:
    """Alternatives that are trained once each; the best on validation data is then trained on every seed of the study.

    The trials have a seed that is not among those of the study, and do not touch the test set. Runs that train different tasks,
    as those of a single-task baseline, are tuned separately and joined. The alternatives differ in the learning rate and in
    hyperparameters that the method and the optimizer declare.

    Example:
        >>> rates = ({"lr": rate} for rate in (1e-3, 3e-3, 1e-2))
        >>> len(best_of_trials("sum", (Run("digits", optimizer_options=options) for options in rates)).runs)
        3
    """
    return Treatment(label, tuple(runs), Combine.TUNE)


@dataclass(frozen=True)
class Expected:
    """A range in which a test metric is expected before it is measured. It is never a result.

    Args:
        label: the treatment.
        task: the task of the metric.
        metric: the name of the metric.
        low: lower end, in the metric's unit.
        high: upper end.
    """

    label: str
    task: str
    metric: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(
                f"the range expected of {self.label!r}, {self.task} {self.metric}: low is at most high, got {self.low} and "
                f"{self.high}"
            )


@dataclass(frozen=True)
class Study:
    """Treatments to compare, on one or several workloads; see :func:`merged`.

    Args:
        name: name of the study, and of its folder by default.
        question: the question that the study answers, one line; the title of the report.
        treatments: the treatments, in the order of the table.
        reference: label of the treatment to which all others are compared, seed by seed.
        baseline: label of the treatment to whose mean metrics Delta m is relative, usually the single-task baseline.
        threads: CPU threads per run. The order of floating-point sums depends on it, so it belongs to the study, not to the
            machine.
        expected: expected ranges of test metrics; the report compares them with the measured values.
        plain_sum: label of the treatment that adds the losses without weights; empty: none.
        recommended: label of the treatment that the report's first sentence is about; empty: none. It is compared with the
            reference and with ``plain_sum``.

    Raises:
        ValueError: repeated labels, a reference or baseline that is not a treatment or has no run on a workload, fewer than
            one thread, or an expected range of an unknown treatment.
    """

    name: str
    question: str
    treatments: tuple[Treatment, ...]
    reference: str
    baseline: str
    threads: int = 1
    expected: tuple[Expected, ...] = ()
    plain_sum: str = ""
    recommended: str = ""

    def __post_init__(self) -> None:
        labels = [treatment.label for treatment in self.treatments]
        if len(set(labels)) < len(labels):
            raise ValueError(f"study {self.name!r}: labels of treatments are unique, got {labels}")
        for role in ("reference", "baseline", "plain_sum", "recommended"):
            label = getattr(self, role)
            if label not in labels and (label or role in ("reference", "baseline")):
                raise ValueError(f"study {self.name!r}: the {role.replace('_', ' ')} is one of {labels}, got {label!r}")
        for stray in [e.label for e in self.expected if e.label not in labels]:
            raise ValueError(f"study {self.name!r}: a range is expected of {stray!r}, the treatments are {labels}")
        if self.threads < 1:
            raise ValueError(f"study {self.name!r}: threads is at least 1, got {self.threads}")
        if self.is_tuned and self._treatment(self.baseline).combine is not Combine.TUNE:
            raise ValueError(
                f"study {self.name!r}: treatments are tuned relative to the baseline {self.baseline!r}, so it is tuned too: "
                "define it with best_of_trials()"
            )
        for treatment in self.treatments:
            missing = [title for title in self.workloads if title not in treatment.workloads]
            if missing and treatment.label in (self.reference, self.baseline):
                raise ValueError(
                    f"study {self.name!r}: {treatment.label!r}, to which others are compared, has a run on every workload; "
                    f"it has none on {missing}"
                )

    @property
    def workloads(self) -> tuple[str, ...]:
        """Titles of all workloads, in the order in which they first occur."""
        return tuple(dict.fromkeys(title for treatment in self.treatments for title in treatment.workloads))

    @property
    def is_tuned(self) -> bool:
        """Whether some treatment has alternatives, of which trials choose one."""
        return any(treatment.combine is Combine.TUNE for treatment in self.treatments)

    def _treatment(self, label: str) -> Treatment:
        return next(treatment for treatment in self.treatments if treatment.label == label)

    def on(self, workload: str) -> Study:
        """The study restricted to one of its workloads, without the treatments that have no run on it."""
        treatments = tuple(
            dataclasses.replace(
                t, runs=runs, combine=t.combine if len(runs) > 1 or t.combine is Combine.TUNE else Combine.ONE
            )
            for t in self.treatments
            if (runs := t.on(workload))
        )
        labels = {treatment.label for treatment in treatments}
        expected = tuple(e for e in self.expected if e.label in labels)
        plain_sum, recommended = (label if label in labels else "" for label in (self.plain_sum, self.recommended))
        return dataclasses.replace(
            self, treatments=treatments, expected=expected, plain_sum=plain_sum, recommended=recommended
        )

    def planned(self, seeds: Iterable[int]) -> Iterator[tuple[Treatment, Run]]:
        """All distinct runs, seed by seed, so that an interrupted study contains complete pairs."""
        keys: set[str] = set()
        for seed in seeds:
            for treatment in self.treatments:
                for run in treatment.seeded(seed):
                    if run.key not in keys:
                        keys.add(run.key)
                        yield treatment, run

    def to_json(self) -> dict[str, Any]:
        """The study as a JSON object, without seeds."""
        treatments = [
            {"label": t.label, "combine": t.combine.value, "runs": [run.to_json() for run in t.seeded(0)]}
            | ({"note": t.note} if t.note else {})
            | ({"plan": dataclasses.asdict(t.plan)} if t.plan is not None else {})
            for t in self.treatments
        ]
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"treatments": treatments}
        values |= {"expected": [dataclasses.asdict(expected) for expected in self.expected]}
        return {name: value for name, value in values.items() if value or name not in ("plain_sum", "recommended")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Study:
        """The study that :meth:`to_json` wrote.

        Raises:
            ValueError: a value is missing, has another type or is not allowed; the message names it.
        """
        study: Study = typed(values, cls)
        return study


def check_scale(name: str, scale: str, scales: Iterable[str]) -> None:
    """Checks that a study has a scale.

    Raises:
        ValueError: it has not; the message names its scales.
    """
    if scale not in scales:
        raise ValueError(f"scales of {name} are {', '.join(map(repr, scales))}, got {scale!r}")


def merged(name: str, question: str, studies: Iterable[Study]) -> Study:
    """One study over the workloads of several studies; treatments with the same label are merged.

    Args:
        name: name of the merged study.
        question: question of the merged study.
        studies: studies on different workloads, with the same reference, baseline and number of threads.

    Raises:
        ValueError: no study, two studies on one workload, or different references, baselines, threads or ways to combine.

    Example:
        >>> def on(workload):
        ...     runs = Run(workload), Run(workload, method="MGDA()")
        ...     treatments = tuple(map(Treatment, ("sum", "MGDA"), ((run,) for run in runs)))
        ...     return Study("one", "?", treatments, reference="sum", baseline="sum")
        >>> merged("two", "Which?", [on("digits"), on("scenes")]).workloads
        ('digits', 'scenes')
    """
    parts = list(studies)
    titles = [title for part in parts for title in part.workloads]
    shared = {(part.reference, part.baseline, part.threads, part.plain_sum, part.recommended) for part in parts}
    if len(shared) != 1 or len(set(titles)) < len(titles):
        raise ValueError(
            f"study {name!r}: expected studies on different workloads with one reference, baseline, number of threads, plain sum "
            f"and recommended treatment, got the workloads {titles} and {sorted(shared)}"
        )
    treatments: dict[str, Treatment] = {}
    for treatment in (t for part in parts for t in part.treatments):
        before = treatments.get(treatment.label)
        runs = treatment.runs if before is None else (*before.runs, *treatment.runs)
        # on a workload with one task, or with a grid of one run, nothing is combined
        several = [t.combine for t in (before, treatment) if t is not None and t.combine is not Combine.ONE]
        if len(set(several)) > 1:
            raise ValueError(f"study {name!r}: {treatment.label!r} is combined as {[c.value for c in several]}")
        combine = several[0] if several else Combine.ONE
        treatments[treatment.label] = dataclasses.replace(before or treatment, runs=runs, combine=combine)
    expected = tuple(each for part in parts for each in part.expected)
    return dataclasses.replace(
        parts[0], name=name, question=question, treatments=tuple(treatments.values()), expected=expected
    )


if not TYPE_CHECKING:
    __getattr__ = former_names(__name__, {"across": "merged", "alone": "single_task", "chosen": "best_of_grid"})
