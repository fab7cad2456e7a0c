"""One reference point for the hypervolumes of all fronts that a report compares.

The reference point of a front is by default from the untrained model of its seed, so that the stored hypervolumes of two seeds
are volumes below different points. Neither their mean nor their difference is a hypervolume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from paretorch.core.arrays import Array
from paretorch.pareto.files.front_folder import read_numbers
from paretorch.reports.reading.front_results import Fronts, volume
from paretorch.reports.reading.load import StudyResults, TaskMetric, TreatmentResults, select_member
from paretorch.training.fronts.front_recorder import SET, VOLUME

MOST_NAMED = 3  # fronts without stored points in one note


def with_common_reference(results: StudyResults) -> StudyResults:
    """The results with all hypervolumes measured from one point; the same object if all runs have one reference point.

    The point has the largest value of each task of the runs' reference points, so it is not below any of them. Hypervolumes of
    the last models are computed from the losses in ``result.json``, those after every epoch from ``front.json``. Without that
    file, or if its hypervolumes are not those of the run, the latter are nan, and a note names the front.
    """
    found = [front for treatment in results.treatments.values() for front in _fronts(treatment)]
    references = [row for front in found for row in front.references if np.isfinite(row).all()]
    if not references or (np.array(references) == references[0]).all():
        return results
    point = tuple(map(float, np.max(references, axis=0)))
    known = [front.largest for front in found if front.reference == point and math.isfinite(front.largest)]
    measured = _Measured(results, point, known[0] if known else math.nan)
    treatments = {label: measured.treatment(treatment) for label, treatment in results.treatments.items()}
    base = treatments[results.plan.study.baseline].validation
    treatments = {label: measured.chosen(treatment, base) for label, treatment in treatments.items()}
    notes = (*results.plan.notes, *_notes(found[0].tasks, point, list(dict.fromkeys(measured.without_points))))
    return replace(results, plan=replace(results.plan, notes=notes), treatments=treatments)


def _fronts(treatment: TreatmentResults) -> Iterator[Fronts]:
    for member in treatment.grid or (treatment,):
        if member.fronts is not None:
            yield member.fronts


def _notes(tasks: Sequence[str], point: Sequence[float], without_points: Sequence[str]) -> Iterator[str]:
    values = ", ".join(f"{task} {value:.12g}" for task, value in zip(tasks, point, strict=True))
    yield (
        f"The runs have different reference points of the hypervolume. All hypervolumes of this report are measured from one "
        f"point, the largest value of each task: {values}."
    )
    if without_points:
        more = len(without_points) - MOST_NAMED
        named = "; ".join(without_points[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        yield (
            f"The hypervolume after every epoch is withheld for {named}: front.json of the run is missing, damaged or of another "
            "run, so the losses of its models after each epoch are unknown."
        )


class _Measured:
    """Treatments with hypervolumes from one point.

    Args:
        results: of the report.
        point: (T,) the reference point.
        largest: upper bound of the hypervolume of any set, from that point; nan if unknown.
    """

    def __init__(self, results: StudyResults, point: tuple[float, ...], largest: float) -> None:
        self.results, self.point, self.largest = results, point, largest
        self.without_points: list[str] = []  # a member that a grid has chosen is here twice
        self.column = next(k for k, metric in enumerate(results.metrics) if _is_volume(metric))

    def treatment(self, treatment: TreatmentResults) -> TreatmentResults:
        """The treatment, and the members of its grid."""
        grid = tuple(map(self.treatment, treatment.grid))
        fronts = treatment.fronts
        if fronts is None:
            return replace(treatment, grid=grid)
        growth = np.full(fronts.hypervolume.shape, math.nan)
        for index, seed in enumerate(self.results.plan.seeds):
            if not np.isfinite(fronts.references[index]).all():
                continue
            folder = self.results.plan.folders.get(replace(treatment.settings[0], seed=seed).key)
            found = None if folder is None else self._growth(folder, fronts, index)
            if found is None:
                self.without_points.append(f"{treatment.label}, seed {seed}")
            else:
                growth[index, : len(found)] = found
        test, validation, curves = (
            values.copy() for values in (treatment.test, treatment.validation, treatment.curves)
        )
        validation[:, self.column] = [volume(points, self.point) for points in fronts.validation_points]
        tested = ~np.isnan(test[:, self.column])
        moved = replace(
            fronts,
            reference=self.point,
            references=np.where(np.isnan(fronts.references), math.nan, self.point),
            largest=self.largest,
            hypervolume=growth,
        )
        test[tested, self.column] = moved.final[tested]
        curves[:, :, self.column] = growth
        return replace(treatment, test=test, validation=validation, curves=curves, fronts=moved, grid=grid)

    def _growth(self, folder: Path, fronts: Fronts, seed: int) -> Array | None:
        """(E,) hypervolumes after the epochs of a run, from the losses in its ``front.json``; None without them."""
        try:
            stored = read_numbers(folder / "front.json")
        except (OSError, ValueError):
            return None
        recorded = fronts.hypervolume[seed]
        recorded = recorded[: np.isfinite(fronts.gradients[seed]).sum()]
        history = stored.history[: len(recorded)]
        same = np.array_equal([moment.hypervolume for moment in history], recorded, equal_nan=True)
        if stored.tasks != fronts.tasks or not same:
            return None
        return np.array([volume(np.array(moment.losses), self.point) for moment in history])

    def chosen(self, treatment: TreatmentResults, base: Array) -> TreatmentResults:
        """Of a grid, the member that is best on validation data, with the hypervolumes from the point."""
        if not any(member.fronts is not None for member in treatment.grid):
            return treatment
        return select_member(treatment.grid, base, self.results.directions, self.results.plan.seeds)


def _is_volume(metric: TaskMetric) -> bool:
    return (metric.task, metric.name) == (SET, VOLUME)
