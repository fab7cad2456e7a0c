"""Tuning of a study: the trials of all searches, their criterion, and the final runs with the chosen settings.

*Listed alternatives* (:func:`~paretorch.studies.study.best_of_trials`) are a trial each, unless their treatment has a plan
(:mod:`paretorch.studies.trial_plan`): successive halving trains them for few epochs first, generations vary the best ones, and
sampled settings come from the declared search spaces, as with ``tune=N``.

*Equal effort.* With ``tune=N``, every other run of a treatment has N trials, the first of which has the study's own settings. All
searches use the same sampler with the same seed, so that treatments with equal search spaces get equal settings in the random
trials. Joined runs (the single-task baseline) share nothing, so each has a search of its own.

*Criterion.* Delta m on validation data over the metrics of the run's tasks, relative to the best trial of the baseline; the
baseline is therefore tuned first, relative to its own first trial. Trials have a seed that no run of the study has, and never
evaluate the test set; only the study's own runs do, once, with the chosen settings.

*Pruning* stops a trial whose parameters became nan, and no other. Such a model has no result, stopped early or not, so pruning
cannot change the choice. A median rule could, even among the trials of one treatment: it favours settings that are fast at first.
Pruned and failed trials count as trials.

*Resuming.* Only the runs are stored. A search is replayed from their folders, with the same sequence of proposals and outcomes,
so that an interrupted tuning continues with the same proposals. The trials of a search are sequential and searches are
independent, so the number of jobs at a time has no influence.
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from paretorch.metrics.comparison import delta_m, is_valid_baseline
from paretorch.storage.damage import WRONG
from paretorch.storage.json_files import parse_json
from paretorch.storage.regular_files import read_regular
from paretorch.storage.seals import Chain
from paretorch.studies.folder import StudyFolder, save_tuning
from paretorch.studies.job import Job
from paretorch.studies.study import Combine, Study, Treatment
from paretorch.studies.trial_plan import Generations, Halving, Sampled
from paretorch.studies.tuning.hyperparameters import listed_settings, searched_runs, with_settings
from paretorch.studies.tuning.search import (
    EvolvedSettings,
    HalvedSettings,
    HyperparameterSearch,
    ListedSettings,
    Proposals,
    SampledSettings,
)
from paretorch.studies.tuning.trials import TrialOutcome, TuningResult
from paretorch.training.record.result import Result, total_seconds
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run

SEED = 1_000_000  # of the trials' runs

Metrics = dict[tuple[str, str], tuple[float, bool]]  # by task and metric: value, and whether higher is better


class Tuner:
    """The jobs of a study that is to be tuned: first the trials, then the final runs with the chosen settings.

    Args:
        folder: a study with trials that is not tuned yet.

    Raises:
        ValueError: a grid that cannot be tuned, or so many seeds that the trials' seed is among them.
    """

    def __init__(self, folder: StudyFolder) -> None:
        if max(folder.seeds) >= SEED:
            raise ValueError(f"a tuned study has at most {SEED} seeds, got {len(folder.seeds)}")
        self.folder, self.study = folder, folder.study
        self.searches = [
            HyperparameterSearch(treatment.label, title, run, self._proposals(treatment, title, run), SEED)
            for treatment in self.study.treatments
            if folder.tune or treatment.combine is Combine.TUNE
            for title in treatment.workloads
            for run in searched_runs(treatment, title)
        ]
        self.pending: dict[Path, HyperparameterSearch] = {}  # by the folder of the pending trial's run
        self.ended: set[Path] = set()
        self.baseline_metrics: dict[str, Metrics] = {}  # of the baseline's best trials, by workload
        self.own_metrics: dict[int, Metrics] = {}  # of the trial to which a baseline's search is relative, by its index
        self.tuned: StudyFolder | None = None

    def _proposals(self, treatment: Treatment, title: str, run: Run) -> Proposals:
        if treatment.combine is Combine.TUNE:
            settings = listed_settings(treatment, title, run)
            match treatment.plan:
                case Halving():
                    return HalvedSettings(settings, treatment.plan, run.epochs)
                case Generations():
                    return EvolvedSettings(run, settings, treatment.plan)
                case Sampled():
                    return SampledSettings(run, treatment.plan.trials)
            return ListedSettings(settings)
        return SampledSettings(run, self.folder.tune)

    @property
    def planned(self) -> int:
        """Number of all jobs, if no two trials have equal settings."""
        return sum(search.number for search in self.searches) + len(self._final_placeholders)

    @property
    def placeholders(self) -> list[Job]:
        """Stand-ins, with the same labels and numbers of epochs, for the jobs that are not known yet."""
        if self.tuned is not None:
            return []
        trials = [
            Job(search.label, dataclasses.replace(search.base, epochs=search.epochs_of(trial)), self.folder.path)
            for search in self.searches
            for trial in range(len(search.trials) + (search.pending is not None), search.number)
        ]
        return trials + self._final_placeholders

    @cached_property
    def _final_placeholders(self) -> list[Job]:
        study = tuned_study(self.study, TuningResult(self.folder.tune, SEED, ()))
        return [Job(treatment.label, run, self.folder.path) for treatment, run in study.planned(self.folder.seeds)]

    def first_jobs(self) -> list[Job]:
        """Jobs that can be trained at once, after a replay of the trials that have ended already."""
        baseline = [search for search in self.searches if search.label == self.study.baseline]
        return [job for search in baseline for job in self._advance(search)] + self._dependent_jobs()

    def next_jobs(self, job: Job) -> list[Job]:
        """Jobs that can be trained now that a job has finished or failed."""
        self.ended.add(job.folder)
        search = self.pending.pop(job.folder, None)
        return (self._advance(search) if search is not None else []) + self._dependent_jobs()

    def _advance(self, search: HyperparameterSearch) -> list[Job]:
        """Replays the trials of a search that have ended, and returns the job of the next one, if any."""
        while search.remaining:
            run = search.propose()
            job = Job(search.label, run, self.folder.trial_folder(search.label, run), trial=len(search.trials) + 1)
            if not (job.finished or job.diverged or job.folder in self.ended):
                self.pending[job.folder] = search
                return [job]
            self._add_outcome(search, job)
        return []

    def _add_outcome(self, search: HyperparameterSearch, job: Job) -> None:
        folder = str(job.folder.relative_to(self.folder.path))
        if not job.finished:
            outcome = TrialOutcome.DIVERGED if job.diverged else TrialOutcome.FAILED
            search.add_outcome(folder, math.nan, outcome, _seconds_of_events(job.folder))
            return
        result = verified_result(job.folder, job.run)
        value = self._criterion(search, result)
        outcome = TrialOutcome.DIVERGED if math.isnan(value) else TrialOutcome.FINISHED
        search.add_outcome(folder, value, outcome, sum(total_seconds(epoch.seconds) for epoch in result.history))

    def _criterion(self, search: HyperparameterSearch, result: Result) -> float:
        """Delta m on validation data, over the metrics that reports include; nan if one of them is not finite."""
        metrics = validation_metrics(result)
        if not metrics:
            raise ValueError(
                f"{search.label}: {search.workload} has no metric on validation data to tune by: give it one"
            )
        if search.label == self.study.baseline:
            place = self.searches.index(search)
            if any(is_valid_baseline(value) for value, _ in metrics.values()):
                self.own_metrics.setdefault(place, metrics)
            base = self.own_metrics.get(place, metrics)
        else:
            base = self.baseline_metrics[search.workload]
        if missing := [f"{task} {name}" for task, name in metrics if (task, name) not in base]:
            raise ValueError(
                f"{search.label}: the baseline {self.study.baseline!r} has no {missing} on {search.workload}, to which others "
                "are compared: let the baseline train all tasks"
            )
        included = {key: value for key, value in metrics.items() if is_valid_baseline(base[key][0])}
        values = [value for value, _ in included.values()]
        if not values or not all(map(math.isfinite, values)):
            return math.nan
        higher_is_better = [higher for _, higher in included.values()]
        return float(delta_m(values, [base[key][0] for key in included], higher_is_better))

    def _dependent_jobs(self) -> list[Job]:
        """Jobs that need the end of the baseline's searches on a workload, or of all searches."""
        jobs: list[Job] = []
        for title in self.study.workloads:
            searches = [search for search in self.searches if search.workload == title]
            baseline = [search for search in searches if search.label == self.study.baseline]
            if title not in self.baseline_metrics and not any(search.remaining for search in baseline):
                self.baseline_metrics[title] = self._best_metrics(baseline)
                jobs += [job for search in searches if search not in baseline for job in self._advance(search)]
        if self.tuned is None and not any(search.remaining for search in self.searches):
            tuning = TuningResult(self.folder.tune, SEED, tuple(search.result for search in self.searches))
            self.tuned = save_tuning(self.folder, tuning, tuned_study(self.study, tuning))
            for job in self.tuned.jobs():
                job.check()
            jobs += [job for job in self.tuned.jobs() if not job.finished]
        return jobs

    def _best_metrics(self, searches: list[HyperparameterSearch]) -> Metrics:
        """Metrics of the chosen trials of the baseline's searches on one workload."""
        metrics: Metrics = {}
        for search in searches:
            result = search.result
            if result.chosen is None:
                raise ValueError(
                    f"no trial of the baseline {search.label!r} on {search.workload} has a result on validation data, so nothing "
                    f"can be tuned relative to it: see failed.json in the folders below {self.folder.path / 'tuning'}"
                )
            best = result.trials[result.chosen]
            metrics |= validation_metrics(verified_result(self.folder.path / best.folder, best.run))
        return metrics


def validation_metrics(result: Result) -> Metrics:
    """The metrics of a result on validation data, with their directions."""
    return {
        (task, name): (value, result.higher_is_better[task][name])
        for task, metrics in result.validation.metrics.items()
        for name, value in metrics.items()
    }


def tuned_study(study: Study, tuning: TuningResult) -> Study:
    """The study with the chosen settings.

    A grid, and alternatives that train the same tasks, become one run; a run without a search is unchanged.
    """
    treatments = []
    for treatment in study.treatments:
        searched = {title: searched_runs(treatment, title) for title in treatment.workloads}
        runs = tuple(
            with_settings(
                run, next((s.settings for s in tuning.of(treatment.label, title) if s.tasks == run.tasks), {})
            )
            for title, group in searched.items()
            for run in group
        )
        combine = Combine.JOIN if any(len(group) > 1 for group in searched.values()) else Combine.ONE
        treatments.append(dataclasses.replace(treatment, runs=runs, combine=combine, plan=None))
    return dataclasses.replace(study, treatments=tuple(treatments))


def _seconds_of_events(folder: Path) -> float:
    """Seconds of the finished epochs of a run without a result.

    Raises:
        ValueError: a line is no event, or differs from what was written; the message names the file.
    """
    seconds, path, chain = 0.0, folder / "events.jsonl", Chain()
    with suppress(FileNotFoundError):
        for number, line in enumerate(read_regular(path).splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):  # the last line may be incomplete
                break
            is_linked = chain.verify(line)
            try:
                event = parse_json(line)
                if "chain" in event and not is_linked:
                    raise ValueError("it differs from what was written")
                seconds += total_seconds(event["seconds"]) if event["event"] == "epoch" else 0.0
            except WRONG:
                raise ValueError(
                    f"{path} is damaged: line {number} is no event that the run wrote. Remove the folder {folder} to train this "
                    "trial again"
                ) from None
    return seconds
