"""Cost and result of the search for hyperparameters, by treatment."""

from __future__ import annotations

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.tables import Table

MOST_NAMED = 6  # treatments in a sentence


def budget(summary: Summary) -> str:
    """The origin of the hyperparameters, in one sentence."""
    found = summary.results.plan.tunings
    grids = [label for label, row in summary.rows.items() if row.results.chosen is not None]
    if found and not any(tuning.trials for tuning in found):
        labels = list(dict.fromkeys(search.label for tuning in found for search in tuning.searches))
        which = "; ".join(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} treatments"
        return f"Hyperparameters of {which} were chosen by the trials of the table Tuning, on validation data alone."
    if found:
        trials = " and ".join(str(tuning.trials) for tuning in found)
        return f"Hyperparameters were searched with {trials} trials for every treatment, on validation data alone."
    if grids:
        return f"Default hyperparameters were used, but for {'; '.join(grids)}: chosen from a grid on validation data."
    return "Hyperparameters were not searched: every treatment has the study's own."


def tuning_table(summary: Summary) -> Table:
    """One row for each treatment with a search; no rows without any."""
    found = summary.results.plan.tunings
    rows: list[tuple[str, ...]] = []
    for label, row in summary.rows.items():
        for tuning in found:
            searches = tuning.of(label, summary.results.plan.workload)
            if searches:
                cost = tuning.cost(label, summary.results.plan.workload)
                settings = "; ".join(_words(dict(search.settings)) for search in searches)
                rows.append(
                    (
                        label,
                        str(cost.trials),
                        str(cost.runs),
                        str(cost.without_value),
                        str(cost.epochs),
                        f"{cost.seconds:.0f}",
                        settings,
                    )
                )
        choice = row.results.choice
        if choice is not None:
            missing = str(sum(1 for run in row.results.missing if run.error))
            epochs = str(choice.runs * choice.run.epochs)
            seconds = f"{choice.seconds:.0f}"
            trained = choice.run.front or choice.run.method
            rows.append((label, "grid", str(choice.runs), missing, epochs, seconds, trained))
    header = ("treatment", "trials", "runs", "without a value", "epochs", "seconds", "chosen")
    notes = (
        "Equal trials for every treatment that is searched for by sampling; trials that diverge or fail count.",
        "runs: trained; settings that were drawn twice are trained once. A grid is trained on every seed of the study.",
        "epochs: of all runs; trials of a pruned search have fewer than a run of the study.",
        "seconds: training and evaluation of these runs. Selection is on validation data; the test set is not touched.",
    )
    return Table("Tuning", header, tuple(rows), notes, left=(6,))


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "the study's own settings"
