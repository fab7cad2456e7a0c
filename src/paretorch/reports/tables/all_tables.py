"""All tables of one workload, by name."""

from __future__ import annotations

from paretorch.reports.analysis.summary import Summary
from paretorch.reports.tables.dominance import dominance_table
from paretorch.reports.tables.expected import expected_table
from paretorch.reports.tables.fronts import indicator_table, quality_table, speedup_table
from paretorch.reports.tables.losses import loss_table
from paretorch.reports.tables.overview import by_metric, costs, dynamics, means, overview
from paretorch.reports.tables.row_order import best_first
from paretorch.reports.tables.searches import lowered_table, search_table, time_table
from paretorch.reports.tables.stationarity import stationarity_table
from paretorch.reports.tables.tables import Table
from paretorch.reports.tables.tuning import tuning_table

TABLES = {  # in the order of the page
    "overview": overview,
    "means": means,
    "by_metric": by_metric,
    "dominance": dominance_table,
    "stationarity": stationarity_table,
    "fronts": quality_table,
    "indicators": indicator_table,
    "faster": speedup_table,
    "losses": loss_table,
    "expected": expected_table,
    "searches": search_table,
    "times": time_table,
    "lowered": lowered_table,
    "dynamics": dynamics,
    "costs": costs,
    "tuning": tuning_table,
}


def all_tables(summary: Summary) -> dict[str, Table]:
    """The tables that have rows; of many treatments the best is first."""
    tables = {name: best_first(make(summary), summary) for name, make in TABLES.items()}
    return {name: table for name, table in tables.items() if table.rows}
