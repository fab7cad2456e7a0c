"""One search for the settings of a run: proposes with Optuna, is told, and remembers its trials in order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from paretorch.core.search_space import Choice, PerTask, Range
from paretorch.extras import extra
from paretorch.studies.tuning.hyperparameters import present, settled, space_of, tasks_of
from paretorch.studies.tuning.tuned import Outcome, Search, Trial
from paretorch.training.run import Plain, Run

with extra("studies"):
    import optuna

SAMPLER_SEED = 0  # of every search
RANDOM = 5  # trials before the sampler learns from them


class Searching:
    """A search that is under way.

    The first trial has the run's own settings, the next ones are drawn at random, the others by the tree-structured Parzen
    estimator. Equal answers to :meth:`ask` and :meth:`tell` give equal proposals.

    Args:
        label: of the treatment.
        workload: its title.
        base: the run whose settings are searched.
        trials: N, at least 1.
        seed: of the trials' runs.

    References:
        Bergstra, Bardenet, Bengio & Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Akiba et al., "Optuna",
        KDD 2019.
    """

    def __init__(self, label: str, workload: str, base: Run, trials: int, seed: int) -> None:
        self.label, self.workload, self.trials = label, workload, trials
        self.base = dataclasses.replace(base, seed=seed, test=False)
        self.space, self.tasks = space_of(base), tasks_of(base)
        self.done: list[Trial] = []
        self.asked: tuple[Mapping[str, Plain], Run] | None = None
        self._proposal: optuna.trial.Trial | None = None
        with _quiet():
            sampler = optuna.samplers.TPESampler(seed=SAMPLER_SEED, n_startup_trials=RANDOM)
            self._study = optuna.create_study(sampler=sampler)

    @property
    def left(self) -> int:
        """Trials to go, the one that is asked and not yet told included."""
        return self.trials - len(self.done)

    def ask(self) -> Run:
        """The next run to train; the same until its end is told."""
        if self.asked is None:
            settings: Mapping[str, Plain] = {}
            if self.done:
                with _quiet():
                    self._proposal = self._study.ask(fixed_distributions=self._distributions())
                settings = self._settings(self._proposal.params)
            self.asked = settings, settled(self.base, settings)
        return self.asked[1]

    def tell(self, folder: str, value: float, outcome: Outcome, seconds: float) -> None:
        """How the run that was asked for ended.

        Args:
            folder: the run's, below the study's.
            value: lower is better; nan where there is none, which the sampler takes for worse than any number.
            outcome: how it ended.
            seconds: it took.
        """
        assert self.asked is not None
        settings, run = self.asked
        with _quiet():
            if self._proposal is None:
                self._tell_own_settings(value)
            elif math.isnan(value):
                self._study.tell(self._proposal, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(self._proposal, value)
        self.done.append(Trial(settings, run, folder, value, outcome, seconds))
        self.asked = self._proposal = None

    @property
    def found(self) -> Search:
        """The search with its trials so far; the earliest of equal values is chosen."""
        values = {place: trial.value for place, trial in enumerate(self.done) if not math.isnan(trial.value)}
        chosen = min(values, key=lambda place: values[place]) if values else None
        return Search(self.label, self.workload, self.base.tasks, tuple(self.done), chosen)

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        found: dict[str, optuna.distributions.BaseDistribution] = {}
        for name, values in self.space.items():
            if isinstance(values, PerTask):
                found |= {f"{name}.{task}": _distribution(values.range) for task in self.tasks}
            else:
                found[name] = _distribution(values)
        return found

    def _settings(self, drawn: Mapping[str, Any]) -> dict[str, Plain]:
        """What was drawn as the options that a run takes."""
        settings: dict[str, Plain] = {}
        for name, values in self.space.items():
            if isinstance(values, PerTask):
                each = {task: float(drawn[f"{name}.{task}"]) for task in self.tasks}
                factor = len(each) / sum(each.values())
                settings[name] = {task: value * factor for task, value in each.items()}
            else:
                settings[name] = drawn[name]
        return settings

    def _tell_own_settings(self, value: float) -> None:
        """Lets the sampler learn from the first trial as well, where its settings lie in the space."""
        distributions, own = self._distributions(), present(self.base)
        drawn: dict[str, Any] = {}
        for name, values in self.space.items():
            if isinstance(values, PerTask):
                drawn |= {f"{name}.{task}": number for task, number in dict(own.get(name) or {}).items()}
            elif name in own:
                drawn[name] = own[name]
        inside = drawn.keys() == distributions.keys() and all(
            _holds(distribution, drawn[name]) for name, distribution in distributions.items()
        )
        if inside and not math.isnan(value):
            trial = optuna.trial.create_trial(params=drawn, distributions=distributions, value=value)
            self._study.add_trial(trial)


def _distribution(values: Range | Choice) -> optuna.distributions.BaseDistribution:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(float(values.low), float(values.high), log=values.log)


def _holds(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    assert isinstance(distribution, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
    return distribution.low <= value <= distribution.high


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs every study and trial; the runner says how it goes."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
