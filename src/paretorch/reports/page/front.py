"""Page of a front: the models as an interactive plot, selection by weights, and code that loads a model."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from paretorch.extras import extra
from paretorch.pareto.files.front_folder import CURE, read_numbers
from paretorch.pareto.files.stored_front import StoredFront
from paretorch.pareto.front import Front, front_of
from paretorch.reports.figures.interactive import rounded
from paretorch.reports.page.embedded import asset, content_policy, plotly, script_data, template
from paretorch.reports.page.writing import HTML, write_page
from paretorch.studies.study import workload_title
from paretorch.training.record import machine
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import verified_result

with extra("studies"):
    from markupsafe import Markup

PAGE = "front.html"
MOST_METRICS = 12  # columns of the table of all models in addition to losses and preferences


@dataclass(frozen=True)
class Quantity:
    """A number about each task: of every model, (N, T), nan if unknown."""

    name: str
    titles: tuple[str, ...]
    values: Sequence[Sequence[float]]


def write_front_page(folder: str | Path) -> Path:
    """Writes ``front.html`` into the folder of a finished run that trained a front: one file that needs no network.

    Args:
        folder: that ``paretorch front`` or a study wrote.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: there is no finished front.
        ValueError: its files are damaged, or ``front.html`` exists and is not such a page.
    """
    folder = Path(folder)
    result = verified_result(folder)
    stored = read_numbers(folder / "front.json")
    facts = result.facts["front"]
    pairs = ((stored.losses, facts["losses"]), (stored.preferences, facts["preferences"]))
    if stored.tasks != result.tasks or not all(np.array_equal(one, two, equal_nan=True) for one, two in pairs):
        raise ValueError(f"{folder / 'front.json'} is not of the run in {folder}: its numbers are others. {CURE}")
    write_page(folder / PAGE, front_page(folder, result, stored), HTML)
    return folder / PAGE


def front_page(folder: Path, result: Result, stored: StoredFront) -> str:
    """The page as HTML; every text from outside is escaped.

    Args:
        folder: of the run, as the page names it.
        result: of the run.
        stored: the content of ``front.json``.
    """
    front = front_of(stored, (), nn.Identity())
    quantities = list(_quantities(result, stored))
    there = bool(torch.isfinite(front.losses).all(dim=1).any())
    reference = ", ".join(f"{task} {value:.4g}" for task, value in zip(front.tasks, front.reference or (), strict=True))
    header = ("model", *(f"weight of {task}" for task in front.tasks), *_headings(quantities))
    library, script = plotly(), asset("frames.js") + asset("front.js")
    return template("front.html.jinja").render(
        title=f"{workload_title(result.run)}, {len(front)} models",
        subtitle=f"{result.run.front}, {result.run.epochs} epoch{'s' * (result.run.epochs > 1)}, seed {result.run.seed}",
        notices=list(_notices(front)),
        tasks=front.tasks,
        caption=_caption(len(front.tasks)),
        columns=[quantity.name for quantity in quantities],
        models=len(front),
        header=header,
        rows=[_row(front, quantities, member) for member in range(len(front))],
        reference=reference,
        facts=_facts(result),
        data=script_data(_data(folder, front, quantities, there)),
        style=Markup(asset("page.css") + asset("front.css")),
        script=Markup(script),
        plotly=Markup(library),
        policy=content_policy(library, script),
    )


def _quantities(result: Result, stored: StoredFront) -> Iterator[Quantity]:
    """Losses and metrics on validation and test data; of a task without such a metric, nan."""
    tasks = stored.tasks
    facts = result.facts["front"]
    for split, losses, metrics in (
        ("validation", stored.losses, stored.metrics),
        ("test", facts["test losses"], facts["test metrics"]),
    ):
        if losses is None:
            continue
        yield Quantity(f"loss ({split})", tuple(f"{task} loss" for task in tasks), losses)
        most = max((len(by.get(task, {})) for by in metrics for task in tasks), default=0)
        for place in range(most):
            names = [_name(metrics, task, place) for task in tasks]
            shared = names[0] if len(set(names)) == 1 else "metric" if most == 1 else f"metric {place + 1}"
            numbers = [
                [float(by.get(task, {}).get(name, math.nan)) for task, name in zip(tasks, names, strict=True)]
                for by in metrics
            ]
            yield Quantity(f"{shared} ({split})", tuple(map(_titled, tasks, names)), numbers)


def _name(metrics: Sequence[Mapping[str, Mapping[str, float]]], task: str, place: int) -> str:
    names = list(metrics[0].get(task, {}))
    return names[place] if place < len(names) else ""


def _titled(task: str, name: str) -> str:
    return f"{task} {name}".strip()


def _headings(quantities: Sequence[Quantity]) -> Iterator[str]:
    for quantity in quantities[: 1 + MOST_METRICS]:
        split = quantity.name.rpartition(" ")[2]
        yield from (f"{title} {split}" for title in quantity.titles)


def _row(front: Front, quantities: Sequence[Quantity], member: int) -> list[str]:
    mark = "" if bool(front.non_dominated[member]) else " diverged" if member in front.diverged else " dominated"
    numbers = [*front.preferences[member].tolist()]
    for quantity in quantities[: 1 + MOST_METRICS]:
        numbers += quantity.values[member]
    return [f"{member}{mark}", *(f"{value:.4g}" if math.isfinite(value) else "–" for value in numbers)]


def _data(folder: Path, front: Front, quantities: Sequence[Quantity], there: bool) -> dict[str, Any]:
    scaled = _scaled(front) if there else [None] * len(front)
    efficient = front.non_dominated.tolist()
    return {
        "tasks": list(front.tasks),
        "members": [
            {
                "preference": rounded(front.preferences[member].tolist()),
                "scaled": scaled[member],
                "front": efficient[member],
                "file": str(folder / f"model-{member:03d}.safetensors"),
            }
            for member in range(len(front))
        ],
        "quantities": [
            {"name": q.name, "titles": list(q.titles), "values": [rounded(row) for row in q.values]}
            for q in quantities
            if all(any(math.isfinite(row[t]) for row in q.values) for t in range(len(front.tasks)))
        ],
        "columns": [{"name": q.name, "values": [rounded(row) for row in q.values]} for q in quantities],
        "history": {
            name: rounded(float(getattr(moment, name)) for moment in front.history)
            for name in ("epoch", "gradients", "seconds", "hypervolume")
        },
        "python": loading(folder),
        "command": f"paretorch pick {shlex.quote(str(folder))} {{picked}} --export model.onnx",
    }


def loading(folder: Path, member: int | str = "{member}") -> str:
    """The three lines of Python that load a model of a front."""
    return (
        "from paretorch.training.fronts.run import load_front\n"
        f"front = load_front({str(folder)!r})\n"
        f"model = front.model({member})  # an nn.Module in eval mode"
    )


def _scaled(front: Front) -> list[list[float] | None]:
    """Losses with ideal and nadir at 0 and 1, as weighted by :meth:`~paretorch.Front.choose`; None for models that diverged."""
    extent = front.nadir - front.ideal
    scaled = (front.losses - front.ideal) / torch.where(extent > 0, extent, 1.0)
    return [row.tolist() if bool(row.isfinite().all()) else None for row in scaled]


def _notices(front: Front) -> Iterator[str]:
    if len(front.diverged) == len(front):
        yield "All models have diverged: train again, with a smaller learning rate."
        return
    if front.diverged:
        which = ", ".join(map(str, front.diverged))
        yield f"Diverged, and left out: model{'s' * (len(front.diverged) > 1)} {which}. Train again with a smaller learning rate."
    if front.reference is not None:
        corner = torch.tensor(front.reference, dtype=torch.float64)
        finite = front.losses.isfinite().all(dim=1)
        beyond = (finite & ~(front.losses < corner).all(dim=1)).nonzero()[:, 0].tolist()
        if beyond:
            yield (
                f"Not below the reference, and without a contribution to the hypervolume: model{'s' * (len(beyond) > 1)} "
                f"{', '.join(map(str, beyond))}. A larger reference includes them."
            )
    kept = int(front.non_dominated.sum())
    if kept < len(front) - len(front.diverged):
        yield f"{kept} of {len(front)} models are not dominated by another on validation data; weights pick among those."


def _caption(tasks: int) -> str:
    how = {2: "Each mark is a model; those on the dotted line are not dominated.", 3: "Each mark is a model; turn it."}
    return (
        how.get(tasks, "Each line is a model, over its tasks, from the lowest to the highest value of any model.")
        + " The selected model is emphasized. Hover for numbers, click to select a model."
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    run, facts = result.run, result.facts["front"]
    options = ", ".join(f"{name}={value}" for name, value in run.optimizer_options.items())
    found = {
        "algorithm": facts["algorithm"],
        "workload": workload_title(run),
        "optimizer": f"{run.optimizer}({options}), batch size {run.batch_size}",
        "members executed as": facts["execution"],
        "gradient evaluations": str(facts["gradients"][-1]),
        "seconds of training": f"{sum(epoch.seconds['training'] for epoch in result.history):.4g}",
        "hypervolume, validation": f"{result.validation.metrics['front']['hypervolume']:.5g}",
    }
    if result.test.metrics:
        found["hypervolume, test"] = f"{result.test.metrics['front']['hypervolume']:.5g}"
    found["reference of the hypervolume"] = ", ".join(f"{value:.5g}" for value in facts["reference"])
    if facts["largest hypervolume"] is not None:
        found["largest hypervolume of any set"] = f"{facts['largest hypervolume']:.5g}"
    if facts["took something over"] is not None:
        found["transfers accepted"] = f"{100 * facts['took something over']:.3g} % of models and steps"
    return [*found.items(), ("paretorch", machine.versions()["paretorch"]), ("key of the run", run.key)]
