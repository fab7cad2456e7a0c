"""All figures of one workload, in the order of the page."""

from __future__ import annotations

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.figures.cosines import cosine_curves, cosine_matrices
from paretorch.reports.figures.curves import learning_curves, training_losses, weights
from paretorch.reports.figures.description import Figure
from paretorch.reports.figures.differences import differences
from paretorch.reports.figures.fronts import fronts
from paretorch.reports.figures.radar import radar
from paretorch.reports.figures.rates import rates
from paretorch.reports.figures.searches import checked, combined_loss, steps
from paretorch.reports.figures.trade_offs import cost, trade_off, trials


def figures(summary: Summary) -> tuple[Figure, ...]:
    """The figures that the results allow; the first shows the differences on which the verdict depends."""
    makers = [
        differences,
        learning_curves,
        training_losses,
        trade_off,
        trials,
        radar,
        cost,
        weights,
        cosine_curves,
        cosine_matrices,
        fronts,
    ]
    if any(row.results.searches is not None for row in summary.rows.values()):
        makers += [rates, combined_loss, steps, checked]
    return tuple(figure for make in makers for figure in make(summary))
