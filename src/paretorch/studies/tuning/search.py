"""The search for the hyperparameters of one run: over listed settings, or with Optuna's sampler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from paretorch.core.search_space import Choice, PerTask, Range
from paretorch.extras import extra
from paretorch.studies.trial_plan import Generations, Halving
from paretorch.studies.tuning.hyperparameters import current_settings, search_space, trained_tasks, with_settings
from paretorch.studies.tuning.trials import SearchResult, Trial, TrialOutcome
from paretorch.training.run import Plain, Run

with extra("studies"):
    import optuna

SAMPLER_SEED = 0  # of every search
RANDOM_TRIALS = 5  # before the sampler uses the values of earlier trials
WEIGHTS = "method.weights"


class Proposals(Protocol):
    """The settings of the trials of a search, in order."""

    number: int  # of trials

    def propose(self) -> Mapping[str, Plain]:
        """The settings of the next trial."""

    def add_value(self, value: float) -> None:
        """Adds the criterion of the proposed trial; nan if it has none."""

    def epochs(self, trial: int, whole: int) -> int:
        """The epochs of a trial, counted from 0, of a run with ``whole`` epochs."""


class ListedSettings:
    """Settings from a list, whatever the outcomes.

    Args:
        settings: those of each trial.
    """

    def __init__(self, settings: Sequence[Mapping[str, Plain]]) -> None:
        self.number = len(settings)
        self._remaining = iter(settings)

    def propose(self) -> Mapping[str, Plain]:
        """The next settings of the list."""
        return next(self._remaining)

    def add_value(self, value: float) -> None:
        """Nothing: the list is fixed."""

    def epochs(self, trial: int, whole: int) -> int:
        """All."""
        return whole


class HalvedSettings:
    """Settings from a list, of which each round keeps the best, for more epochs.

    Args:
        settings: those of the first round.
        plan: of the rounds.
        whole: epochs of the last round.
    """

    def __init__(self, settings: Sequence[Mapping[str, Plain]], plan: Halving, whole: int) -> None:
        self._rounds = plan.rounds(len(settings), whole)
        self.number = sum(count for count, _ in self._rounds)
        self._round, self._settings = 0, list(settings)
        self._values: list[float] = []

    def propose(self) -> Mapping[str, Plain]:
        """The next settings of the round."""
        return self._settings[len(self._values)]

    def add_value(self, value: float) -> None:
        """Adds the criterion; at the end of a round the best continue, of equal values the first; those without one are last."""
        self._values.append(math.inf if math.isnan(value) else value)
        if len(self._values) == len(self._settings) and self._round + 1 < len(self._rounds):
            self._round += 1
            order = sorted(range(len(self._values)), key=lambda place: self._values[place])
            kept = sorted(order[: self._rounds[self._round][0]])
            self._settings, self._values = [self._settings[place] for place in kept], []

    def epochs(self, trial: int, whole: int) -> int:
        """Those of the trial's round."""
        for count, length in self._rounds:
            if trial < count:
                return length
            trial -= count
        return whole


class EvolvedSettings:
    """Static weights of a population: listed ones first, then variations of the best quarter so far.

    Args:
        base: the run, whose method has weights by task.
        settings: those of the first generation; empty ones for the run's own.
        plan: of the generations.
    """

    def __init__(self, base: Run, settings: Sequence[Mapping[str, Plain]], plan: Generations) -> None:
        self.number = len(settings) * plan.number
        self._own, self._first, self._spread = current_settings(base)[WEIGHTS], list(settings), plan.spread
        self._random = np.random.default_rng(SAMPLER_SEED)
        self._proposal: Mapping[str, Plain] = {}
        self._trials: list[tuple[float, Mapping[str, Plain]]] = []

    def propose(self) -> Mapping[str, Plain]:
        """The settings of the next member."""
        if len(self._trials) < len(self._first):
            self._proposal = self._first[len(self._trials)]
        else:
            generation = len(self._trials) // len(self._first)
            before = self._trials[
                : generation * len(self._first)
            ]  # members of a generation do not depend on each other
            best = sorted(before, key=lambda trial: trial[0])[: math.ceil(len(before) / 4)]
            parent = best[int(self._random.integers(len(best)))][1]
            varying = parent.get(WEIGHTS, self._own)
            assert isinstance(varying, dict)
            weights = {task: float(weight) for task, weight in varying.items()}
            noise = np.exp(self._spread * self._random.standard_normal(len(weights)))
            varied = {
                task: weight * factor for (task, weight), factor in zip(weights.items(), noise.tolist(), strict=True)
            }
            mean = sum(varied.values()) / len(varied)
            self._proposal = {**parent, WEIGHTS: {task: round(value / mean, 6) for task, value in varied.items()}}
        return self._proposal

    def add_value(self, value: float) -> None:
        """Adds the criterion of the proposed member; those without one are last."""
        self._trials.append((math.inf if math.isnan(value) else value, self._proposal))

    def epochs(self, trial: int, whole: int) -> int:
        """All."""
        return whole


class SampledSettings:
    """Settings from Optuna's sampler; the run's own are the first.

    The next trials are drawn at random, and the others come from the tree-structured Parzen estimator.

    Args:
        base: the run.
        number: number of trials N, at least 1.

    References:
        Bergstra, Bardenet, Bengio & Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Akiba et al., "Optuna",
        KDD 2019.
    """

    def __init__(self, base: Run, number: int) -> None:
        self.number, self._base = number, base
        self._space, self._tasks = search_space(base), trained_tasks(base)
        self._first = True
        self._proposal: optuna.trial.Trial | None = None
        with _without_logging():
            sampler = optuna.samplers.TPESampler(seed=SAMPLER_SEED, n_startup_trials=RANDOM_TRIALS)
            self._study = optuna.create_study(sampler=sampler)

    def propose(self) -> Mapping[str, Plain]:
        """The settings of the next trial; empty for the run's own."""
        if self._first:
            return {}
        with _without_logging():
            self._proposal = self._study.ask(fixed_distributions=self._distributions())
        return self._settings(self._proposal.params)

    def add_value(self, value: float) -> None:
        """Adds the criterion of the proposed trial; a trial with nan is ranked below every number."""
        with _without_logging():
            if self._proposal is None:
                self._add_own_settings(value)
            elif math.isnan(value):
                self._study.tell(self._proposal, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(self._proposal, value)
        self._first, self._proposal = False, None

    def epochs(self, trial: int, whole: int) -> int:
        """All."""
        return whole

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        for name, values in self._space.items():
            if isinstance(values, PerTask):
                distributions |= {f"{name}.{task}": _distribution(values.range) for task in self._tasks}
            else:
                distributions[name] = _distribution(values)
        return distributions

    def _settings(self, parameters: Mapping[str, Any]) -> dict[str, Plain]:
        """Optuna's parameters as settings of a run; values per task are scaled to a mean of one."""
        settings: dict[str, Plain] = {}
        for name, values in self._space.items():
            if isinstance(values, PerTask):
                each = {task: float(parameters[f"{name}.{task}"]) for task in self._tasks}
                factor = len(each) / sum(each.values())
                settings[name] = {task: value * factor for task, value in each.items()}
            else:
                settings[name] = parameters[name]
        return settings

    def _add_own_settings(self, value: float) -> None:
        """Adds the run's own settings to Optuna's study if they are in the search space."""
        distributions, own = self._distributions(), current_settings(self._base)
        parameters: dict[str, Any] = {}
        for name, values in self._space.items():
            if isinstance(values, PerTask):
                parameters |= {f"{name}.{task}": number for task, number in dict(own.get(name) or {}).items()}
            elif name in own:
                parameters[name] = own[name]
        inside = parameters.keys() == distributions.keys() and all(
            _contains(distribution, parameters[name]) for name, distribution in distributions.items()
        )
        if inside and not math.isnan(value):
            trial = optuna.trial.create_trial(params=parameters, distributions=distributions, value=value)
            self._study.add_trial(trial)


class HyperparameterSearch:
    """A sequential search for the hyperparameters of a run.

    Equal sequences of values in :meth:`add_outcome` give equal proposals.

    Args:
        label: the treatment.
        workload: title of the workload.
        base: the run.
        proposals: the settings of the trials.
        seed: seed of the trials' runs.
    """

    def __init__(self, label: str, workload: str, base: Run, proposals: Proposals, seed: int) -> None:
        self.label, self.workload, self.proposals = label, workload, proposals
        self.base = dataclasses.replace(base, seed=seed, test=False)
        self.trials: list[Trial] = []
        self.pending: tuple[Mapping[str, Plain], Run] | None = None

    @property
    def number(self) -> int:
        """Number of trials."""
        return self.proposals.number

    @property
    def remaining(self) -> int:
        """Number of trials without an outcome, the pending one included."""
        return self.number - len(self.trials)

    def propose(self) -> Run:
        """The run of the next trial; the same until :meth:`add_outcome`."""
        if self.pending is None:
            settings = self.proposals.propose()
            run = with_settings(self.base, settings)
            self.pending = settings, dataclasses.replace(run, epochs=self.epochs_of(len(self.trials)))
        return self.pending[1]

    def epochs_of(self, trial: int) -> int:
        """The epochs of a trial, counted from 0."""
        return self.proposals.epochs(trial, self.base.epochs)

    def add_outcome(self, folder: str, value: float, outcome: TrialOutcome, seconds: float) -> None:
        """Adds the outcome of the pending trial.

        Args:
            folder: folder of the run, relative to that of the study.
            value: the criterion, lower is better; nan if there is none.
            outcome: how the run ended.
            seconds: seconds of training and evaluation.
        """
        assert self.pending is not None
        settings, run = self.pending
        self.proposals.add_value(value)
        self.trials.append(Trial(settings, run, folder, value, outcome, seconds))
        self.pending = None

    @property
    def result(self) -> SearchResult:
        """The trials so far; the best one that has all epochs is chosen, of equal values the earliest."""
        whole = {place: trial for place, trial in enumerate(self.trials) if trial.run.epochs == self.base.epochs}
        values = {place: trial.value for place, trial in whole.items() if not math.isnan(trial.value)}
        chosen = min(values, key=lambda place: values[place]) if values else None
        return SearchResult(self.label, self.workload, self.base.tasks, tuple(self.trials), chosen)


def _distribution(values: Range | Choice) -> optuna.distributions.BaseDistribution:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(float(values.low), float(values.high), log=values.log)


def _contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    assert isinstance(distribution, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
    return distribution.low <= value <= distribution.high


@contextmanager
def _without_logging() -> Iterator[None]:
    """Turns off Optuna's message for every study and trial: the runner prints the progress."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
