"""Resumed runs equal uninterrupted ones bit for bit: at every epoch, after a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from faults.experiments import ARGUMENTS
from paretorch.core.method.state_fields import named_tensors
from paretorch.storage import atomic
from paretorch.training.loop import train
from paretorch.training.names.methods import find_method, methods
from paretorch.training.record.result import Result
from paretorch.training.run import Plain, Run
from training_runs import TINY, stop_after

SGD: dict[str, Plain] = {"lr": 0.01, "momentum": 0.9}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that are killed: sums over threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**values: Any) -> Run:
    return Run(**{"workload": TINY, "epochs": 4, "batch_size": 8, **values})


RUNS = {
    "DWA on features, SGD": tiny(
        method="DWA(window=None)", optimizer="SGD", optimizer_options={"lr": 1e-4, "momentum": 0.9}
    ),
    "FAMO on features, Adam": tiny(method="FAMO()"),
    "FAMO on parameters, SGD": tiny(method="FAMO()", surface="parameters", optimizer="SGD", optimizer_options=SGD),
    "Uncertainty on parameters, Adam": tiny(method="Uncertainty()", surface="parameters"),
    "GradDrop, random, missing labels": tiny(method="GradDrop()", options={"missing": True}),
    "PCGrad, own inputs": tiny(method="PCGrad()", surface="parameters", options={"own_inputs": True}),
    "weights reused": tiny(method="MGDA()", door={"every": 3}),
    "a single task": tiny(tasks=("size",)),
}


def without_times(result: Result) -> dict[str, Any]:
    """The result without times and memory."""
    values = result.to_json()
    assert values.pop("seconds_per_epoch") > 0
    assert values.pop("peak_memory")
    for epoch in values["history"]:
        assert set(epoch.pop("seconds")) == {"training", "evaluation", "loading"}
    return values


class Progress:
    """Records the number of epochs done at each call."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def __call__(self, done: int, of: int) -> None:
        self.epochs.append(done)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@pytest.mark.sampled(2)
def test_resumed_run_equals_uninterrupted_run_at_every_epoch(run: Run, tmp_path: Path) -> None:
    uninterrupted = without_times(train(run, tmp_path / "uninterrupted", progress=None))
    assert len({json.dumps(epoch["losses"]) for epoch in uninterrupted["history"]}) == 4
    for stop in range(5):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(run, folder, progress=stop_after(stop, of=4))
        assert not (folder / "result.json").exists()
        resumed = Progress()
        result = train(run, folder, progress=resumed)
        assert resumed.epochs[0] == stop
        assert without_times(result) == uninterrupted
        assert without_times(Result.load(folder)) == uninterrupted


def stores_gradients(name: str) -> bool:
    """Whether the state of a method has rows of numbers whose length is known after the first step only."""
    method = find_method(f"{name}({ARGUMENTS.get(name, '')})")
    state = named_tensors(method.init(("sign", "size"), torch.zeros(())))
    return method.batches == 1 and any(value.shape[1:] == (0,) for value in state.values())


@pytest.mark.parametrize("name", [name for name in methods() if stores_gradients(name)])
def test_resumed_run_of_a_method_that_stores_gradients_equals_uninterrupted_run(name: str, tmp_path: Path) -> None:
    run = tiny(method=f"{name}({ARGUMENTS.get(name, '')})", surface="parameters", epochs=2)
    uninterrupted = without_times(train(run, tmp_path / "uninterrupted", progress=None))
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "cut", progress=stop_after(1, of=2))
    assert without_times(train(run, tmp_path / "cut", progress=None)) == uninterrupted


def test_resumed_run_with_rare_checkpoints_equals_uninterrupted_run(tmp_path: Path) -> None:
    run = RUNS["FAMO on features, Adam"]
    uninterrupted = without_times(train(run, tmp_path / "uninterrupted", progress=None))
    for stop in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "rare", progress=stop_after(stop, of=4), checkpoint_every=2)
    assert [path.name for path in (tmp_path / "rare" / "checkpoint").iterdir()] == ["epoch-2"]
    assert without_times(train(run, tmp_path / "rare", progress=None, checkpoint_every=2)) == uninterrupted


def test_train_restores_the_global_random_generators(tmp_path: Path) -> None:
    random.seed(5)
    expected = random.Random(5).random()
    train(tiny(epochs=1), tmp_path, progress=None)
    assert random.random() == expected


def test_full_disk_leaves_complete_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny(method="DWA()", epochs=2)
    uninterrupted = without_times(train(run, tmp_path / "uninterrupted", progress=None))
    sync, calls = os.fsync, [0]

    def full_from(first: int) -> Callable[[int], None]:
        calls[0] = 0

        def full(handle: int) -> None:
            calls[0] += 1
            if calls[0] >= first:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        return full

    for first in range(1, 100):
        folder = tmp_path / str(first)
        monkeypatch.setattr(os, "fsync", full_from(first))
        with contextlib.suppress(OSError):
            train(run, folder, progress=None)
        monkeypatch.setattr(os, "fsync", sync)
        if calls[0] < first:
            break
        assert not list(folder.rglob("*writing*"))
        assert not (folder / "result.json").exists() or calls[0] == first  # the last write settles the result's folder
        assert without_times(train(run, folder, progress=None)) == uninterrupted
    assert 10 < first < 99


def test_full_disk_truncates_the_last_line_and_names_the_file(tmp_path: Path) -> None:
    run = tiny(epochs=3)
    uninterrupted = without_times(train(run, tmp_path / "uninterrupted", progress=None))
    folder = tmp_path / "limited"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(epochs=3), folder, progress=lambda done, _: _interrupt(done))
    lines = (folder / "events.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines) + 30, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no space left to write .*events\.jsonl.*it resumes"):
            train(run, folder, progress=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (folder / "events.jsonl").read_bytes() == lines
    assert without_times(train(run, folder, progress=None)) == uninterrupted


def _interrupt(done: int) -> None:
    if done == 1:
        raise KeyboardInterrupt


def test_atomic_write_keeps_the_earlier_file_on_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    atomic.write(path, b"before")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, b"after")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]
    assert path.read_bytes() == b"before"
