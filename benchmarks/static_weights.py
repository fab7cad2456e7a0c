"""Static weights from a balanced run and from a population, compared with a grid that takes three times as many runs.

    python benchmarks/static_weights.py diabetes breast_cancer digits --seeds 5

For each seed, every search is repeated with a seed of its own and selects on validation data. The weights that it finds are then
trained with the study's seed, and measured on test data by Delta m relative to single tasks of the same seed. Learning rates are
those of the study "methods"; nothing but the weights differs. Differences to the grid's best are paired over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from paretorch.metrics import delta_m, delta_m_to_best
from paretorch.studies.population import search_population
from paretorch.studies.statistics.paired import compare, interval
from paretorch.training import Result, Run, train
from paretorch.training.balanced_run import SHARE, balanced_weights
from paretorch.training.names.constructors import Call, written
from paretorch.training.run import Plain

SEARCH_SEED = 1_000_000  # plus the seed of the study
GRID, BALANCED, POPULATION, SUM, METHOD = "grid", "balanced run", "population", "sum", "IMTLG on features"


@dataclass(frozen=True)
class Setting:
    """A workload, with the factors of each task's weight in the grid; the first task has weight 1."""

    base: Run
    factors: Mapping[str, tuple[float, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self.factors)

    def grid(self) -> Iterator[dict[str, float]]:
        """The weights of the grid, with a mean of one."""
        for factors in itertools.product(*self.factors.values()):
            yield {task: len(factors) * value / sum(factors) for task, value in zip(self.tasks, factors, strict=True)}


def _run(workload: str, options: dict[str, Plain], rate: float, epochs: int, batch_size: int) -> Run:
    return Run(
        workload, options, optimizer_options={"lr": rate}, epochs=epochs, batch_size=batch_size, schedule="cosine"
    )


WIDE, NARROW, ONE = (0.04, 0.2, 1.0, 5.0, 25.0), (0.2, 1.0, 5.0), (1.0,)
SETTINGS = {
    "diabetes": Setting(
        _run("tabular", {"table": "diabetes"}, 5e-3, 25, 64), {"progression": ONE, "bmi": WIDE, "bp": WIDE}
    ),
    "breast_cancer": Setting(
        _run("tabular", {"table": "breast_cancer"}, 1e-2, 25, 64),
        {"diagnosis": ONE, "worst_texture": NARROW, "worst_smoothness": NARROW, "worst_symmetry": NARROW},
    ),
    "digits": Setting(
        _run("digits", {"ink": True, "train": 2000}, 1e-2, 10, 128),
        {"left": ONE, "right": (1 / 3, 1.0, 3.0), "ink": tuple(10.0**-power for power in range(8))},
    ),
}  # fmt: skip


def main() -> None:
    """Measures the workloads that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(SETTINGS), choices=[[], *SETTINGS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, help="also write the numbers into this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    found = {name: [measure(SETTINGS[name], seed) for seed in seeds] for name in arguments.workloads}
    for name, rows in found.items():
        print(table(name, SETTINGS[name], rows))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


def measure(setting: Setting, seed: int) -> dict[str, dict[str, object]]:
    """The weights and Delta m on test data, by treatment."""
    search = replace(setting.base, seed=SEARCH_SEED + seed, test=False)
    grid = list(setting.grid())
    trials = [_train(with_weights(search, weights)) for weights in grid]
    keys = [(task, name) for task, metrics in trials[0].higher_is_better.items() for name in metrics]
    higher = [trials[0].higher_is_better[task][name] for task, name in keys]
    values = delta_m_to_best([[trial.validation.metrics[t][n] for t, n in keys] for trial in trials], higher)
    balanced = balanced_weights(replace(search, method="IMTLG()"))
    population = search_population(search, members=members(len(grid)), centre=balanced)
    weights = {
        SUM: dict.fromkeys(setting.tasks, 1.0),
        GRID: grid[int(values.argmin())],
        BALANCED: dict(balanced),
        POPULATION: dict(population.weights),
    }
    final = replace(setting.base, seed=seed)
    runs = {label: with_weights(final, each) for label, each in weights.items()}
    runs[METHOD] = replace(final, method="IMTLG()")
    single: dict[tuple[str, str], float] = {}
    for task in setting.tasks:
        metrics = _train(replace(final, tasks=(task,))).test.metrics
        single |= {(task, name): value for name, value in metrics[task].items()}
    row: dict[str, dict[str, object]] = {}
    for label, run in runs.items():
        metrics = _train(run).test.metrics
        value = float(delta_m([metrics[t][n] for t, n in keys], [single[key] for key in keys], higher))
        row[label] = {"delta_m": value, "weights": weights.get(label)}
        print(f"seed {seed}, {label}: {value:.2f} {row[label]['weights'] or ''}", flush=True)
    return row


def members(grid: int) -> int:
    """The largest population that takes, with its balanced run, a third of the grid's runs."""
    return math.floor(grid / 3 - SHARE + 1e-9)


def with_weights(run: Run, weights: Mapping[str, float]) -> Run:
    """The run with static weights."""
    return replace(run, method=written(Call("Static", (), {"weights": dict(weights)})))


def _train(run: Run) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        return train(run, folder, progress=None, checkpoint_every=None)


def table(name: str, setting: Setting, rows: list[dict[str, dict[str, object]]]) -> str:
    """The table of a workload in Markdown."""
    grid = len(list(setting.grid()))
    runs = {SUM: 0.0, GRID: grid, BALANCED: SHARE, POPULATION: members(grid) + SHARE, METHOD: 0.0}
    values = {label: [float(row[label]["delta_m"]) for row in rows] for label in runs}  # type: ignore[arg-type]
    differences = {
        label: [one - other for one, other in zip(values[label], values[GRID], strict=True)]
        for label in runs
        if label != GRID
    }
    compared = compare(differences)
    lines = [
        f"\n{name}, {len(rows)} seeds",
        "| weights from | runs | Delta m, % | difference to the grid's best, 95 % | verdict |",
        "|---|---|---|---|---|",
    ]
    for label in runs:
        mean = sum(values[label]) / len(rows)
        between = interval(differences[label]) if label != GRID else None
        difference = "" if label == GRID else f"{compared[label].difference:.1f}"
        difference += f" [{between.low:.1f}, {between.high:.1f}]" if between else ""
        verdict = "" if label == GRID else compared[label].verdict.value
        lines.append(f"| {label} | {runs[label]:.3g} | {mean:.1f} | {difference} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
