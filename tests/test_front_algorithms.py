"""The properties of the table of front algorithms, on a small workload."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import paretorch as pt
from front_algorithms import ALGORITHMS, TRAINED, AlgorithmEntry, parameters
from paretorch import pareto
from paretorch.pareto import Front, FrontAlgorithm, FrontSnapshot
from paretorch.training.fronts.algorithms import algorithms, find_algorithm
from paretorch.workloads.synthetic import Synthetic
from training_runs import KilledError
from training_workload import Tiny

STEPS, EPOCHS = 4, 2


def fit(entry: AlgorithmEntry, workload: Any = None, **options: Any) -> Front:
    """A front of three preferences, in two epochs of four steps; of points for populations."""
    if workload is None:
        population = entry.kind == "population"
        workload = Synthetic("zdt1", size=4) if population else Synthetic(samples=64)
    execution = {"execution": "vmap"} if entry.kind == "members" else {}
    options = {**execution, "starts": "independent", "reference": (9.0, 9.0), **options}
    front: Front = pt.fit_front(
        workload,
        entry.algorithm,
        preferences=pt.preferences(2, 3, margin=0.1),
        epochs=EPOCHS,
        batch_size=16,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        **options,
    )
    return front


def equal_fronts(first: Front, second: Front) -> bool:
    states = zip(first.states, second.states, strict=True)
    return torch.equal(first.losses, second.losses) and all(
        torch.equal(a[name], b[name]) for a, b in states for name in a
    )


def test_algorithm_table_lists_every_exported_algorithm() -> None:
    exported = {
        name
        for name in pareto.__all__
        if inspect.isclass(value := getattr(pareto, name))
        and issubclass(value, FrontAlgorithm)
        and value is not FrontAlgorithm
    }
    assert exported == {type(entry.algorithm).__name__ for entry in ALGORITHMS}
    assert exported == set(algorithms()), "names of the command line are those of the exports"


@pytest.mark.parametrize("entry", ALGORITHMS, ids=lambda entry: entry.name)
def test_algorithm_properties_are_those_of_the_table(entry: AlgorithmEntry) -> None:
    algorithm = entry.algorithm
    assert algorithm.conditional == (entry.kind == "conditional")
    assert algorithm.evolves == (entry.kind == "population")
    assert algorithm.trains_members == (entry.kind == "members")
    assert (algorithm.sharing() is not None) == entry.transfers
    assert (algorithm.preference_adaptation() is not None) == entry.moves_preferences
    assert find_algorithm(repr(algorithm)) == algorithm, "a constructor is read as repr writes it"


@pytest.mark.parametrize("entry", parameters(ALGORITHMS))
def test_algorithm_trains_finite_members_with_the_gradients_of_the_table(entry: AlgorithmEntry) -> None:
    random = torch.get_rng_state()
    front = fit(entry)
    assert torch.equal(torch.get_rng_state(), random), "the caller's random state is unchanged"
    assert front.losses.shape == (3, 2)
    assert bool(front.losses.isfinite().all())
    assert front.diverged == ()
    assert [snapshot.epoch for snapshot in front.history] == [1, 2]
    assert front.facts["algorithm"] == entry.name
    assert front.facts["gradient evaluations"] == EPOCHS * STEPS * entry.gradients
    assert ("took something over" in front.facts) == entry.transfers
    assert torch.equal(front.preferences, pt.preferences(2, 3, margin=0.1)) != entry.moves_preferences


@pytest.mark.parametrize("entry", parameters(ALGORITHMS))
@pytest.mark.sampled(3)
def test_algorithm_is_determined_by_its_seed(entry: AlgorithmEntry) -> None:
    assert equal_fronts(fit(entry, seed=4), fit(entry, seed=4))
    assert not equal_fronts(fit(entry, seed=4), fit(entry, seed=5))


@pytest.mark.parametrize("entry", parameters(ALGORITHMS))
def test_algorithm_front_is_saved_and_loaded(entry: AlgorithmEntry, tmp_path: Path) -> None:
    front = fit(entry)
    front.save(tmp_path)
    assert equal_fronts(Front.load(tmp_path, front.template), front)


@pytest.mark.parametrize("entry", parameters([entry for entry in ALGORITHMS if entry.interior]))
def test_algorithm_refuses_preferences_on_the_boundary(entry: AlgorithmEntry) -> None:
    with pytest.raises(ValueError, match="needs preferences above 0"):
        entry.algorithm.check(pt.preferences(2, 3), ("a", "b"))


@pytest.mark.parametrize("entry", parameters([entry for entry in ALGORITHMS if not entry.interior]))
def test_algorithm_accepts_preferences_on_the_boundary(entry: AlgorithmEntry) -> None:
    entry.algorithm.check(pt.preferences(2, 3), ("a", "b"))


@pytest.mark.parametrize("entry", parameters(TRAINED))
def test_algorithm_trains_while_tasks_are_absent(entry: AlgorithmEntry) -> None:
    front = fit(entry, Tiny(missing=True), reference=(9.0, 9e4))
    assert bool(front.losses.isfinite().all())


@pytest.mark.parametrize("entry", parameters([entry for entry in ALGORITHMS if entry.resumes]))
@pytest.mark.sampled(2)
def test_algorithm_resumes_a_killed_training_bit_for_bit(entry: AlgorithmEntry, tmp_path: Path) -> None:
    def kill(snapshot: FrontSnapshot) -> None:
        if snapshot.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fit(entry, checkpoint=tmp_path, progress=kill)
    resumed, whole = fit(entry, checkpoint=tmp_path), fit(entry)
    assert equal_fronts(resumed, whole)
    assert torch.equal(resumed.preferences, whole.preferences)
    assert resumed.facts["gradient evaluations"] == whole.facts["gradient evaluations"]


@pytest.mark.parametrize("entry", parameters([entry for entry in ALGORITHMS if not entry.resumes]))
def test_algorithm_that_cannot_resume_refuses_a_checkpoint(entry: AlgorithmEntry, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave checkpoint out"):
        fit(entry, checkpoint=tmp_path)


@pytest.mark.parametrize("entry", parameters([entry for entry in ALGORITHMS if entry.kind != "members"]))
@pytest.mark.parametrize("option", ["execution", "group"])
def test_algorithm_without_members_refuses_options_of_an_ensemble(entry: AlgorithmEntry, option: str) -> None:
    value = {"execution": "loop", "group": FakeGroup()}[option]
    name = type(entry.algorithm).__name__
    with pytest.raises(ValueError, match=rf"{option}=.* has no effect on {name}, .*{entry.kind}.*: leave {option} out"):
        fit(entry, **{option: value})


@pytest.mark.parametrize("entry", parameters(ALGORITHMS))
def test_algorithm_refuses_an_unknown_execution(entry: AlgorithmEntry) -> None:
    with pytest.raises(ValueError, match=r"execution is 'auto' or 'measured' or 'loop'.*, got 'vmpa'"):
        fit(entry, execution="vmpa")


class FakeGroup:
    """A process group of one rank."""

    def size(self) -> int:
        return 1
