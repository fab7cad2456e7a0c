"""Tuning: every treatment gets the same number of trials, is judged on validation data, and the test set is left alone.

*Equal.* Every run of a treatment has N trials, the first of which has the study's own settings. All searches have the same
sampler with the same seed, so that treatments with equal spaces are offered equal settings as long as nothing is learned.
Joined runs (the single-task baseline) share nothing, so each is searched for itself.

*Judged.* The criterion is Delta m on validation data over the metrics of the run's tasks, against the baseline's best trial:
the baseline is therefore tuned first, against its own first trial. Trials have a seed of their own, which no run of the study
has, and never read the test set; the study's own seeds do, once, with what was chosen.

*Pruning* stops a trial whose parameters are no numbers any more, and nothing else. Such a model stays as it is whatever
follows, and has no result, stopped early or not: so pruning cannot change what is chosen. A median rule, even among a
treatment's own trials, would: it favours treatments that are fast at first. Pruned and failed trials count as trials.

*Resumed.* Nothing is stored but the runs. A search is replayed from their folders, asked and told in the same order, so that
an interrupted tuning continues as if it had never stopped; within a search trials follow one another, and searches do not
see each other, so that the number of jobs does not matter.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from paretorch.studies.folder import Job, StudyFolder, keep_tuning
from paretorch.studies.statistics.quality import countable, delta_m
from paretorch.studies.study import Combine, Study, Treatment
from paretorch.studies.tuning.hyperparameters import base_of, settled
from paretorch.studies.tuning.proposals import Searching
from paretorch.studies.tuning.tuned import Outcome, Tuning
from paretorch.training.record.result import Result, total_seconds
from paretorch.training.record.run_identity import verified_result

SEED = 1_000_000  # of the trials' runs

Values = dict[tuple[str, str], tuple[float, bool]]  # by task and metric: value, and whether higher is better


class Tuner:
    """The runs of a study that is tuned, as they become known: trials first, then the seeds with what was chosen.

    Args:
        folder: a study that is to be tuned and is not yet.

    Raises:
        ValueError: a grid that cannot be tuned, or so many seeds that they would reach that of the trials.
    """

    def __init__(self, folder: StudyFolder) -> None:
        if max(folder.seeds) >= SEED:
            raise ValueError(f"a tuned study has at most {SEED} seeds, got {len(folder.seeds)}")
        self.folder, self.study = folder, folder.study
        self.searches = [
            Searching(treatment.label, title, base, folder.tune, SEED)
            for treatment in self.study.treatments
            for title in treatment.workloads
            for base in base_of(treatment, title)
        ]
        self.waiting: dict[Path, Searching] = {}  # for a run to end, by its folder
        self.ended: set[Path] = set()
        self.values: dict[str, Values] = {}  # the baseline's best on validation data, by workload
        self.own: dict[int, Values] = {}  # what a baseline's search is judged against, by its place
        self.tuned: StudyFolder | None = None

    @property
    def planned(self) -> int:
        """Runs in all, where no two trials are alike."""
        return self.folder.tune * len(self.searches) + len(self._final())

    @property
    def later(self) -> list[Job]:
        """Stand-ins for the runs that are not known yet: as many, with the labels and epochs that they will have."""
        if self.tuned is not None:
            return []
        trials = [
            Job(search.label, search.base, self.folder.path)
            for search in self.searches
            for _ in range(search.left - (search.asked is not None))
        ]
        return trials + self._final()

    def begin(self) -> list[Job]:
        """What can be trained at once. What is on disk already is replayed."""
        first = [search for search in self.searches if search.label == self.study.baseline]
        return [job for search in first for job in self._advance(search)] + self._released()

    def follow(self, job: Job) -> list[Job]:
        """What can be trained now that a job has ended."""
        self.ended.add(job.folder)
        search = self.waiting.pop(job.folder, None)
        return (self._advance(search) if search is not None else []) + self._released()

    def _final(self) -> list[Job]:
        study = settle(self.study, Tuning(self.folder.tune, SEED, ()))
        return [Job(treatment.label, run, self.folder.path) for treatment, run in study.planned(self.folder.seeds)]

    def _advance(self, search: Searching) -> list[Job]:
        """Tells the search all that is known; returns the run that it then needs."""
        while search.left:
            run = search.ask()
            job = Job(search.label, run, self.folder.trial_place(search.label, run), trial=len(search.done) + 1)
            if not (job.finished or job.diverged or job.folder in self.ended):
                self.waiting[job.folder] = search
                return [job]
            self._tell(search, job)
        return []

    def _tell(self, search: Searching, job: Job) -> None:
        place = str(job.folder.relative_to(self.folder.path))
        if not job.finished:
            outcome = Outcome.DIVERGED if job.diverged else Outcome.FAILED
            search.tell(place, math.nan, outcome, _seconds_of_events(job.folder))
            return
        result = verified_result(job.folder, job.run)
        value = self._value(search, result)
        outcome = Outcome.DIVERGED if math.isnan(value) else Outcome.FINISHED
        search.tell(
            place,
            value,
            outcome,
            sum(total_seconds(epoch.seconds) for epoch in result.history),
        )

    def _value(self, search: Searching, result: Result) -> float:
        """Delta m on validation data, over the metrics that the page counts; nan where one of those is no number."""
        found = values_of(result)
        if not found:
            raise ValueError(
                f"{search.label}: {search.workload} has no metric on validation data to tune by: give it one"
            )
        if search.label == self.study.baseline:
            place = self.searches.index(search)
            if any(countable(value) for value, _ in found.values()):
                self.own.setdefault(place, found)
            base = self.own.get(place, found)
        else:
            base = self.values[search.workload]
        if missing := [f"{task} {name}" for task, name in found if (task, name) not in base]:
            raise ValueError(
                f"{search.label}: the baseline {self.study.baseline!r} has no {missing} on {search.workload}, to which others "
                "are compared: let the baseline train all tasks"
            )
        counted = {key: value for key, value in found.items() if countable(base[key][0])}
        mine = [value for value, _ in counted.values()]
        if not mine or not all(map(math.isfinite, mine)):
            return math.nan
        return float(delta_m(mine, [base[key][0] for key in counted], [higher for _, higher in counted.values()]))

    def _released(self) -> list[Job]:
        """What the end of the baseline's searches, or of all, makes possible."""
        jobs: list[Job] = []
        for title in self.study.workloads:
            here = [search for search in self.searches if search.workload == title]
            baseline = [search for search in here if search.label == self.study.baseline]
            if title not in self.values and not any(search.left for search in baseline):
                self.values[title] = self._best(baseline)
                jobs += [job for search in here if search not in baseline for job in self._advance(search)]
        if self.tuned is None and not any(search.left for search in self.searches):
            tuning = Tuning(self.folder.tune, SEED, tuple(search.found for search in self.searches))
            self.tuned = keep_tuning(self.folder, tuning, settle(self.study, tuning))
            for job in self.tuned.jobs():
                job.check()
            jobs += [job for job in self.tuned.jobs() if not job.finished]
        return jobs

    def _best(self, searches: list[Searching]) -> Values:
        values: Values = {}
        for search in searches:
            found = search.found
            if found.chosen is None:
                raise ValueError(
                    f"no trial of the baseline {search.label!r} on {search.workload} has a result on validation data, so nothing "
                    f"can be tuned against it: failed.json in the folders below {self.folder.path / 'tuning'} says why"
                )
            best = found.trials[found.chosen]
            values |= values_of(verified_result(self.folder.path / best.folder, best.run))
        return values


def values_of(result: Result) -> Values:
    """A result's metrics on validation data, with their directions."""
    return {
        (task, name): (value, result.higher_is_better[task][name])
        for task, metrics in result.validation.metrics.items()
        for name, value in metrics.items()
    }


def settle(study: Study, tuning: Tuning) -> Study:
    """The study with what was chosen; a grid becomes one run, and what was not searched stays as it is."""
    treatments = []
    for treatment in study.treatments:
        runs = tuple(
            settled(base, next((s.settings for s in tuning.of(treatment.label, title) if s.tasks == base.tasks), {}))
            for title in treatment.workloads
            for base in base_of(treatment, title)
        )
        combine = Combine.ONE if treatment.combine is Combine.CHOOSE else treatment.combine
        treatments.append(Treatment(treatment.label, runs, combine))
    return Study(study.name, study.question, tuple(treatments), study.reference, study.baseline, study.threads)


def _seconds_of_events(folder: Path) -> float:
    """Seconds of the epochs that a run without a result has behind it."""
    seconds = 0.0
    with suppress(FileNotFoundError):
        for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line may be cut off
                event = json.loads(line)
                if event["event"] == "epoch":
                    seconds += total_seconds(event["seconds"])
    return seconds
