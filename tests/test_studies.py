"""Studies and treatments as values."""

from __future__ import annotations

import dataclasses
import json

import pytest

import studies_synthetic as synthetic
from paretorch.studies.lookup import find_study
from paretorch.studies.study import Combine, Study, Treatment, best_of_grid, merged, single_task
from paretorch.training.run import Run
from studies_small import BASE, small_study

SCENES = Run("scenes", epochs=2)
CHOSEN = (best_of_grid("single", [SCENES, dataclasses.replace(SCENES, method="MGDA()")]), Treatment("sum", (SCENES,)))


def on_scenes(**changes: object) -> Study:
    return small_study(
        **{"treatments": (single_task("single", SCENES, ("a", "b", "c")), Treatment("sum", (SCENES,))), **changes}
    )


def test_across_merges_treatments_with_equal_labels() -> None:
    both = merged("both", "Which?", [small_study(), on_scenes()])
    assert both.workloads == ("digits", "scenes")
    assert [treatment.label for treatment in both.treatments] == ["single", "sum"]
    for title, one in (("digits", small_study()), ("scenes", on_scenes())):
        assert both.on(title).treatments == one.treatments
    assert len(list(both.planned((0, 1)))) == len(list(small_study().planned((0, 1)))) + len(
        list(on_scenes().planned((0, 1)))
    )
    assert Study.from_json(json.loads(json.dumps(both.to_json()))) == both
    lone = merged("both", "?", [small_study(), on_scenes(treatments=(Treatment("single", (SCENES,)), CHOSEN[1]))])
    assert [t.combine for t in lone.treatments] == [Combine.JOIN, Combine.ONE]
    assert lone.on("scenes").treatments[0].combine is Combine.ONE


def test_seeded_replaces_the_seed_of_every_run() -> None:
    runs = [run for treatment in find_study("quickstart", "small").treatments for run in treatment.seeded(3)]
    assert {run.seed for run in runs} == {3}
    shared = ("workload", "options", "optimizer", "optimizer_options", "epochs", "batch_size", "device", "precision")
    for name in shared:
        assert len({str(getattr(run, name)) for run in runs}) == 1, name


def test_quickstart_contains_single_tasks_and_tuned_static_weights() -> None:
    study = find_study("quickstart", "small")
    combined = {t.label: (t.combine, len(t.runs)) for t in study.treatments if t.combine is not Combine.ONE}
    assert combined == {"single tasks (ceiling)": (Combine.JOIN, 3), "static weights, tuned": (Combine.CHOOSE, 5)}
    assert (study.reference, study.baseline) == ("static weights, tuned", "single tasks (ceiling)")


def test_planned_yields_distinct_runs_seed_by_seed() -> None:
    twice = small_study(treatments=(*small_study().treatments, Treatment("again", (BASE,))))
    planned = [(treatment.label, run.tasks, run.seed) for treatment, run in twice.planned((0, 1))]
    assert planned == [
        (label, tasks, seed)
        for seed in (0, 1)
        for label, tasks in (("single", ("left",)), ("single", ("right",)), ("sum", ()))
    ]


def test_study_survives_json() -> None:
    for study in (find_study("quickstart", "small"), synthetic.study()):
        assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: Treatment("a", ()),
            "one run on a workload is combined as 'one', several as 'join', 'choose' or 'tune'; got 0 as 'one'",
        ),
        (lambda: Treatment("a", (BASE, BASE)), "got 2 as 'one'"),
        (lambda: best_of_grid("a", [BASE]), "got 1 as 'choose'"),
        (
            lambda: Treatment("a", (BASE, BASE), Combine.JOIN),
            "joined runs train disjoint tasks that each of them names",
        ),
        (lambda: single_task("a", BASE, ("x", "x")), "joined runs train disjoint tasks"),
        (lambda: small_study(treatments=(small_study().treatments[1],) * 2), "labels of treatments are unique"),
        (lambda: small_study(reference="nobody"), r"the reference is one of \['single', 'sum'\], got 'nobody'"),
        (lambda: small_study(threads=0), "threads is at least 1, got 0"),
        (
            lambda: small_study(treatments=(*small_study().treatments, Treatment("other", (Run("scenes"),)))),
            "'single', to which others are compared, has a run on every workload; it has none on .*scenes",
        ),
        (lambda: Treatment("a", (BASE, Run("scenes"), Run("scenes", method="MGDA()"))), "got 1 and 2 as 'one'"),
        (lambda: merged("all", "?", []), "expected studies on different workloads"),
        (lambda: merged("all", "?", [small_study(), small_study()]), "expected studies on different workloads"),
        (lambda: merged("all", "?", [small_study(), on_scenes(reference="single")]), "with one reference"),
        (
            lambda: merged("all", "?", [small_study(), on_scenes(treatments=CHOSEN)]),
            r"'single' is combined as \['join', 'choose'\]",
        ),
    ],
)
def test_inconsistent_study_is_refused(wrong: object, message: str) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=message):
        wrong()
