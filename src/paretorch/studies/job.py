"""The training of one run of a study in its own folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import read_json
from paretorch.studies.failure_record import read_failure
from paretorch.training.record.result import total_seconds
from paretorch.training.record.run_record import finished_result
from paretorch.training.run import Run


@dataclass(frozen=True)
class Job:
    """A run to train.

    Args:
        label: the treatment.
        run: the run.
        folder: the folder of the run.
        trial: number of the trial within its search, from 1; None for a run of the study itself.
        others: jobs of runs that differ in the seed alone and are trained together with this one.
    """

    label: str
    run: Run
    folder: Path
    trial: int | None = None
    others: tuple[Job, ...] = ()

    @property
    def members(self) -> tuple[Job, ...]:
        """This job and those that are trained together with it."""
        return (self, *self.others)

    @property
    def finished(self) -> bool:
        """Whether the folder contains a result."""
        return (self.folder / "result.json").exists()

    def check(self) -> None:
        """Checks that a result in the folder is undamaged, of this run, and of the current version of the workload's file.

        Raises:
            ValueError: it is not; the message names the cure.
        """
        finished_result(self.folder, self.run)

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation of a finished run; 0 where its result has no history.

        Raises:
            ValueError: the result is damaged.
        """
        path = self.folder / "result.json"
        with naming_damaged(path, "Remove it to finish the run again"):
            return sum(total_seconds(epoch["seconds"]) for epoch in read_json(path).get("history", ()))

    @property
    def diverged(self) -> bool:
        """Whether this is a trial that was stopped because its parameters became nan.

        Raises:
            ValueError: the record of a failure is damaged, or belongs to another run.
        """
        failure = None if self.trial is None else read_failure(self.folder, self.run)
        return failure is not None and failure.diverged

    @property
    def title(self) -> str:
        """The name of the job in progress messages."""
        tasks = f" ({', '.join(self.run.tasks)})" if self.run.tasks else ""
        return f"{self.label}{tasks}, " + (f"seed {self.run.seed}" if self.trial is None else f"trial {self.trial}")


def grouped(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, where those of a treatment that differ in the seed alone are one, at the place of the first.

    Trials have one seed and are not grouped.
    """
    groups: dict[str, list[Job]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(str(place) if job.trial is not None else replace(job.run, seed=0).key, []).append(job)
    return [replace(first, others=tuple(others)) for first, *others in groups.values()]
