"""How the trials of a tuned treatment are chosen: each alternative once, or by an adaptive plan."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Halving:
    """Successive halving: all alternatives are trained for few epochs, the better part for more, the last ones for all.

    A trial of fewer epochs is a run of its own from the initial weights, whose schedule ends with it. The number of epochs grows
    by the factor by which the number of alternatives decreases. Selection is on validation data alone.

    Args:
        factor: by which the number of alternatives decreases, at least 2.
        shortest: share of the epochs in the first round, in (0, 1]; at least one epoch.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> Halving(factor=3, shortest=1 / 9).rounds(alternatives=21, epochs=18)    # (alternatives, epochs) of each round
        ((21, 2), (7, 6), (3, 18))

    References:
        Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
    """

    factor: int = 3
    shortest: float = 1 / 9

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"halving keeps one of `factor` alternatives, factor at least 2, got {self.factor}")
        if not 0 < self.shortest <= 1:
            raise ValueError(f"the shortest trials have a share of the epochs in (0, 1], got {self.shortest}")

    def rounds(self, alternatives: int, epochs: int) -> tuple[tuple[int, int], ...]:
        """The number of alternatives and their epochs in each round; the last one has all epochs."""
        found: list[tuple[int, int]] = []
        length = self.shortest * epochs
        while True:
            whole = min(epochs, max(1, round(length)))
            if not found or whole > found[-1][1]:
                found.append((math.ceil(found[-1][0] / self.factor) if found else alternatives, whole))
            if whole == epochs:
                return tuple(found)
            length *= self.factor


@dataclass(frozen=True)
class Generations:
    """Population-based search of static weights: the alternatives are the first generation, and later ones vary the best.

    Each member of a later generation has the weights of a random one of the best quarter of all trials so far (exploit), times
    the exponential of normal noise (perturb). Every trial is a whole run from the same initial weights: models are not copied,
    so that the weights found are those of one run, and the cost is that of as many runs.

    Args:
        number: of generations, the first included; at least 2.
        spread: standard deviation of the change of the logarithm of a weight; above 0.

    Raises:
        ValueError: a value out of range.

    References:
        Jaderberg et al., "Population Based Training of Neural Networks", 2017, with truncation selection;
        :func:`paretorch.studies.population.search_population` copies models too.
    """

    number: int = 3
    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.number < 2:
            raise ValueError(f"a search by generations has at least 2, got {self.number}")
        if not (math.isfinite(self.spread) and self.spread > 0):
            raise ValueError(f"the spread of the logarithms of weights is a finite number above 0, got {self.spread}")


@dataclass(frozen=True)
class Sampled:
    """Trials with settings from Optuna's sampler: the learning rate, and the hyperparameters that method and optimizer declare.

    The first trial has the run's own settings. Treatments with the same number of trials have equal budgets.

    Args:
        trials: N, whole runs; at least 1.

    Raises:
        ValueError: fewer than one, or above 10,000.
    """

    trials: int

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"a search has at least 1 trial, got {self.trials}")
        check_trials(self.trials)


def check_trials(trials: int) -> None:
    """Checks that a search has a number of trials that a study can list.

    Raises:
        ValueError: it has more.
    """
    if trials > MOST_TRIALS:
        raise ValueError(f"a search has at most {MOST_TRIALS:,} trials, got {trials:,}")


TrialPlan = Halving | Generations | Sampled
