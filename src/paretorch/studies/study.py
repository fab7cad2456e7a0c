"""What a study is: treatments, each one or several runs, repeated over seeds and compared with a reference.

A study is a Python function ``study(scale)`` that returns a :class:`Study`: shipped ones are the files of
``paretorch/studies/catalog``, a user's own is any file that ends in ``.py``.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paretorch.training.run import Run


class Combine(enum.Enum):
    """How the runs of a treatment on a workload become its result on a seed."""

    ONE = "one"  # there is one run
    JOIN = "join"  # every run trains some of the tasks, together they are the result
    CHOOSE = "choose"  # one of them, the best on validation data over all seeds; the cost of all of them is counted


def workload_title(run: Run) -> str:
    """The workload of a run as one would write it.

    Example:
        >>> workload_title(Run("digits", options={"ink": True}))
        'digits(ink=True)'
    """
    options = ", ".join(f"{name}={value!r}" for name, value in sorted(run.options.items()))
    return f"{run.workload}({options})" if options else run.workload


@dataclass(frozen=True)
class Treatment:
    """What a study compares.

    Args:
        label: its name in tables and figures.
        runs: what is trained on every seed, on one workload or on several; the seeds that stand in them are replaced.
        combine: how those of one workload become one result.

    Raises:
        ValueError: no run, or a number of runs on a workload that does not fit ``combine``.

    Example:
        >>> Treatment("MGDA", (Run("digits", method="MGDA()"),)).label
        'MGDA'
    """

    label: str
    runs: tuple[Run, ...]
    combine: Combine = Combine.ONE

    def __post_init__(self) -> None:
        groups = [self.on(title) for title in self.workloads]
        counts = [len(group) for group in groups] or [0]
        if not all(counts) or (max(counts) == 1) != (self.combine is Combine.ONE):
            raise ValueError(
                f"treatment {self.label!r}: one run on a workload is combined as 'one', several as 'join' or 'choose'; "
                f"got {' and '.join(map(str, counts))} as {self.combine.value!r}"
            )
        for group in groups if self.combine is Combine.JOIN else []:
            trained = [task for run in group for task in run.tasks]
            if len(group) > 1 and (not all(run.tasks for run in group) or len(set(trained)) < len(trained)):
                raise ValueError(
                    f"treatment {self.label!r}: joined runs train disjoint tasks that each of them names, "
                    f"got {[run.tasks for run in group]}; see alone()"
                )

    @property
    def workloads(self) -> tuple[str, ...]:
        """Titles of the workloads that it is trained on."""
        return tuple(dict.fromkeys(map(workload_title, self.runs)))

    def on(self, workload: str) -> tuple[Run, ...]:
        """Its runs on the workload of that title."""
        return tuple(run for run in self.runs if workload_title(run) == workload)

    def seeded(self, seed: int) -> tuple[Run, ...]:
        """The treatment's runs on one seed."""
        return tuple(dataclasses.replace(run, seed=seed) for run in self.runs)


def alone(label: str, base: Run, tasks: Iterable[str]) -> Treatment:
    """The single-task baseline: a run of its own for each task, their results joined.

    Example:
        >>> [run.tasks for run in alone("single task", Run("digits"), ("left", "right")).runs]
        [('left',), ('right',)]
    """
    runs = tuple(dataclasses.replace(base, tasks=(task,)) for task in tasks)
    return Treatment(label, runs, Combine.JOIN if len(runs) > 1 else Combine.ONE)


def chosen(label: str, runs: Iterable[Run]) -> Treatment:
    """A grid of runs, of which the best on validation data counts: the lowest mean Delta m over all seeds."""
    return Treatment(label, tuple(runs), Combine.CHOOSE)


@dataclass(frozen=True)
class Expected:
    """A range in which a test metric was expected before anything was measured. Never a result.

    Args:
        label: of the treatment.
        task: of the metric.
        metric: its name.
        low: lowest of the range, in the metric's unit.
        high: highest.
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
    """Treatments to compare, on one workload or on several; see :func:`across`.

    Args:
        name: the study's name, and its folder's unless another is given.
        question: what is asked, one line; heads the report.
        treatments: what is compared, in the order of the table.
        reference: label of the treatment to which all others are compared, seed by seed.
        baseline: label of the treatment whose mean metrics Delta m is relative to: the single-task baseline.
        threads: CPU threads per run. Sums depend on it, so it is part of the study and not of the machine.
        expected: ranges of test metrics that were expected; the page says which of them what was measured lies in.

    Raises:
        ValueError: repeated labels, a reference or baseline that is no treatment or misses a workload, no thread, a range
            for what is no treatment.
    """

    name: str
    question: str
    treatments: tuple[Treatment, ...]
    reference: str
    baseline: str
    threads: int = 1
    expected: tuple[Expected, ...] = ()

    def __post_init__(self) -> None:
        labels = [treatment.label for treatment in self.treatments]
        if len(set(labels)) < len(labels):
            raise ValueError(f"study {self.name!r}: labels of treatments are unique, got {labels}")
        for role in ("reference", "baseline"):
            if getattr(self, role) not in labels:
                raise ValueError(f"study {self.name!r}: the {role} is one of {labels}, got {getattr(self, role)!r}")
        for stray in [e.label for e in self.expected if e.label not in labels]:
            raise ValueError(f"study {self.name!r}: a range is expected of {stray!r}, the treatments are {labels}")
        if self.threads < 1:
            raise ValueError(f"study {self.name!r}: threads is at least 1, got {self.threads}")
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

    def on(self, workload: str) -> Study:
        """The study on one of its workloads alone; treatments without a run there are left out."""
        found = [(t, t.on(workload)) for t in self.treatments if t.on(workload)]
        treatments: Iterable[Treatment] = (
            dataclasses.replace(t, runs=runs, combine=t.combine if len(runs) > 1 else Combine.ONE) for t, runs in found
        )
        treatments = tuple(treatments)
        expected = tuple(e for e in self.expected if any(e.label == t.label for t in treatments))
        return dataclasses.replace(self, treatments=treatments, expected=expected)

    def planned(self, seeds: Iterable[int]) -> Iterator[tuple[Treatment, Run]]:
        """Every run once, seed by seed, so that an interrupted study leaves complete pairs."""
        seen: set[str] = set()
        for seed in seeds:
            for treatment in self.treatments:
                for run in treatment.seeded(seed):
                    if run.key not in seen:
                        seen.add(run.key)
                        yield treatment, run

    def to_json(self) -> dict[str, Any]:
        """The study as a JSON object."""
        treatments = [
            {"label": t.label, "combine": t.combine.value, "runs": [run.to_json() for run in t.seeded(0)]}
            for t in self.treatments
        ]
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"treatments": treatments}
        return values | {"expected": [dataclasses.asdict(expected) for expected in self.expected]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Study:
        """The study that :meth:`to_json` wrote."""
        treatments = tuple(
            Treatment(t["label"], tuple(Run.from_json(run) for run in t["runs"]), Combine(t["combine"]))
            for t in values["treatments"]
        )
        expected = tuple(Expected(**found) for found in values.get("expected", ()))
        return cls(**{**values, "treatments": treatments, "expected": expected})


def across(name: str, question: str, studies: Iterable[Study]) -> Study:
    """One study over several workloads: treatments of the same label belong together.

    Args:
        name: of the whole.
        question: of the whole.
        studies: each on a workload of its own, with the same reference, baseline and threads.

    Raises:
        ValueError: none, two on one workload, or unlike references, baselines, threads or ways to combine.

    Example:
        >>> def on(workload):
        ...     runs = Run(workload), Run(workload, method="MGDA()")
        ...     treatments = tuple(map(Treatment, ("sum", "MGDA"), ((run,) for run in runs)))
        ...     return Study("one", "?", treatments, reference="sum", baseline="sum")
        >>> across("two", "Which?", [on("digits"), on("scenes")]).workloads
        ('digits', 'scenes')
    """
    parts = list(studies)
    titles = [title for part in parts for title in part.workloads]
    shared = {(part.reference, part.baseline, part.threads) for part in parts}
    if len(shared) != 1 or len(set(titles)) < len(titles):
        raise ValueError(
            f"study {name!r}: expected studies on different workloads with one reference, baseline and number of threads, "
            f"got the workloads {titles} and {sorted(shared)}"
        )
    treatments: dict[str, Treatment] = {}
    for treatment in (t for part in parts for t in part.treatments):
        before = treatments.get(treatment.label)
        runs = treatment.runs if before is None else (*before.runs, *treatment.runs)
        # on a workload with one task, or with a grid of one, there is nothing to combine
        several = [t.combine for t in (before, treatment) if t is not None and t.combine is not Combine.ONE]
        if len(set(several)) > 1:
            raise ValueError(f"study {name!r}: {treatment.label!r} is combined as {[c.value for c in several]}")
        treatments[treatment.label] = Treatment(treatment.label, runs, several[0] if several else Combine.ONE)
    reference, baseline, threads = shared.pop()
    expected = tuple(found for part in parts for found in part.expected)
    return Study(name, question, tuple(treatments.values()), reference, baseline, threads, expected)
