"""Random studies of any size with complete records, for tests of the page and of its speed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from paretorch.studies.failure_record import FailureRecord, write_failure
from paretorch.studies.folder import StudyFolder, open_folder
from paretorch.studies.study import Study, Treatment
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.run import Run


def study(labels: Sequence[str], epochs: int = 3, workloads: Iterable[str] = ("drawn",), name: str = "many") -> Study:
    """A treatment for each label, on every workload; the first is reference and baseline."""
    treatments = tuple(
        Treatment(label, tuple(Run(w, method=f"Method{i}()", epochs=epochs) for w in workloads))
        for i, label in enumerate(labels)
    )
    return Study(name, "Which is best?", treatments, reference=labels[0], baseline=labels[0])


def finished(
    path: Path, of: Study, tasks: Sequence[str], seeds: int, nan: bool = False, failed: Iterable[str] = ()
) -> StudyFolder:
    """The study's folder with all its runs finished, but for those of the treatments in ``failed``.

    Args:
        path: of the study.
        of: what was run.
        tasks: of every run.
        seeds: how many.
        nan: the losses of every second treatment end in nan and inf.
        failed: labels of treatments whose runs raised.
    """
    folder = open_folder(path, of, "smoke", seeds, resume=False)
    places = {treatment.label: place for place, treatment in enumerate(of.treatments)}
    for job in folder.jobs():
        job.folder.mkdir(parents=True)
        if job.label in failed:
            trace = 'Traceback (most recent call last):\n  File "<script>", line 1\nValueError: </script><b>no</b>\n'
            write_failure(job.folder, job.run, FailureRecord("ValueError: <no>", trace))
        else:
            result(job.run, tasks, places[job.label], nan and places[job.label] % 2 == 1).save(job.folder)
    return folder


def result(run: Run, tasks: Sequence[str], place: int, nan: bool = False) -> Result:
    """The result of a run: later treatments are slightly worse."""
    draw = np.random.default_rng([run.seed, place, len(run.workload)])
    quality = (
        0.9 - 0.01 * place + 0.01 * np.random.default_rng(run.seed).normal() + 0.005 * draw.normal(size=len(tasks))
    )

    def scores(epoch: int) -> Scores:
        late = 1 - 0.5 / epoch
        values = {
            task: {"accuracy": float(q * late * (1 + 0.01 * draw.normal()))}
            for task, q in zip(tasks, quality, strict=True)
        }
        return Scores(dict.fromkeys(tasks, 1 / epoch), values)

    def one(epoch: int) -> Epoch:
        broken = nan and epoch == run.epochs
        losses = dict.fromkeys(tasks, math.inf if broken else 1 / epoch)
        weights = {task: math.nan if broken else float(10.0 ** draw.normal()) for task in tasks}
        cosines = {
            t: [round(float(c), 4) for c in draw.uniform(-1, 1, len(tasks) - i - 1)] for i, t in enumerate(tasks)
        }
        seconds = {"training": 1.0 + 0.1 * place, "evaluation": 0.1}
        return Epoch(epoch, losses, scores(epoch), weights, {"solved": 10}, 100, seconds, cosines)

    history = tuple(one(epoch) for epoch in range(1, run.epochs + 1))
    last = history[-1].validation
    test = dataclasses.replace(last, metrics={t: {"accuracy": math.nan} for t in tasks} if nan else last.metrics)
    return Result(
        run=run,
        tasks=tuple(tasks),
        history=history,
        validation=last,
        test=test,
        higher_is_better={task: {"accuracy": True} for task in tasks},
        units={task: {"accuracy": ""} for task in tasks},
        seconds_per_epoch=1.0 + 0.1 * place,
        peak_memory={"bytes": 1 << 28, "measures": "nothing"},
        parameters={"encoder": 1, "total": 2},
        facts={},
    )
