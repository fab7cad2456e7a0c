"""Checkpoints: errors for damaged and foreign ones, nested state, schedule."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paretorch.storage.checkpoint_folder import UNSEALED, load_latest, saved_checkpoints
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from paretorch.storage.nested_state import pack, unpack
from paretorch.storage.seals import SEAL, sealed
from paretorch.training.loop import train
from paretorch.training.run import Run
from training_runs import TINY, stop_after

RUN = Run(TINY, method="DWA()", epochs=3, batch_size=8)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A run that was stopped after its first epoch."""

    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, progress=stop_after(1, of=3))
    return tmp_path


def newest(folder: Path) -> Path:
    return folder / "checkpoint" / "epoch-1"


@pytest.mark.parametrize("name", ["model", "optimizer", "door", "random"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda content: content[:-3], "expected .* bytes, got"),
        (lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:], "differs from what was written"),
        (lambda _: b"", "bytes, got 0"),
        (None, "missing"),
    ],
    ids=["truncated", "a flipped bit", "empty", "missing"],
)
def test_checkpoint_names_a_damaged_file(started: Path, name: str, harm: Any, message: str) -> None:
    path = newest(started) / f"{name}.safetensors"
    if harm is None:
        path.unlink()
    else:
        path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{name}\.safetensors is damaged: .*{message}.*Remove the folder"):
        train(RUN, started, progress=None)
    assert not (started / "result.json").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "another"}', '{"format": "paretorch checkpoint 1"}']
)
def test_checkpoint_names_a_damaged_state(started: Path, content: str) -> None:
    (newest(started) / "state.json").write_text(content)
    with pytest.raises(ValueError, match=r"state\.json is damaged"):
        train(RUN, started, progress=None)


def test_checkpoint_of_another_run_is_refused(started: Path) -> None:
    path = newest(started) / "state.json"
    state = json.loads(path.read_text())
    state["run"]["seed"] = 7
    path.write_text(json.dumps(sealed({name: value for name, value in state.items() if name != SEAL})))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(RUN, started, progress=None)


def test_checkpoint_of_another_architecture_loads_nothing(started: Path) -> None:
    found = load_latest(started / "checkpoint", [(RUN.to_json(), None)])
    assert found is not None
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=r"does not fit the model: expected 'weight' of shape \(1, 3\), got none"):
        found.load_into(model, torch.optim.SGD(model.parameters()), None)
    assert torch.equal(model.weight, before)


def test_checkpoint_ignores_incomplete_folders(started: Path) -> None:
    (started / "checkpoint" / ".writing").mkdir()
    (started / "checkpoint" / ".writing" / "model.safetensors").write_bytes(b"half")
    (started / "checkpoint" / "epoch-2.broken").mkdir()
    assert saved_checkpoints(started / "checkpoint") == [newest(started)]
    train(RUN, started, progress=None)
    assert [path.name for path in saved_checkpoints(started / "checkpoint")] == ["epoch-3"]
    assert not (started / "checkpoint" / ".writing").exists()


def test_checkpoint_model_is_a_file_of_weights(started: Path) -> None:
    from safetensors.torch import load_file

    assert {"encoder.0.weight", "heads.sign.weight"} <= set(load_file(newest(started) / "model.safetensors"))


def test_nested_state_keeps_containers_dtypes_and_ties() -> None:
    tied = torch.randn(3)
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "empty": torch.zeros(0, 2)}, 1: {"history": [tied, tied[1:]]}},
        "groups": [{"betas": (0.9, 0.999), "foreach": None, "lr": 0.1, "names": ["a"], "nothing": ()}],
        "types": [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.float64, torch.uint8, torch.bool)],
    }
    value, tensors = pack(tree)
    back = unpack(json.loads(json.dumps(value)), tensors)
    assert str(back) == str(tree)
    assert [kind.dtype for kind in back["types"]] == [kind.dtype for kind in tree["types"]]  # type: ignore[attr-defined]
    assert type(back["groups"][0]["betas"]) is tuple


def test_nested_state_names_values_that_cannot_be_saved() -> None:
    with pytest.raises(TypeError, match=r"cannot save groups/0/schedule: .* got function"):
        pack({"groups": [{"schedule": lambda: 0}]})


def test_checkpoint_schedule_limits_the_share_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    schedule, saved = CheckpointSchedule(None), []
    for epoch in range(1, 401):
        now[0] += 0.5
        if schedule(epoch):
            saved.append(now[0])
            with schedule.measure():
                now[0] += 0.018
    assert saved[0] == pytest.approx(5.0), "before the first measurement, the estimate is 0.05 seconds"
    assert {round(later - before, 3) for before, later in itertools.pairwise(saved)} == {2.018}
    assert 0.018 * len(saved) <= 0.01 * now[0]
    every = CheckpointSchedule(3)
    assert [epoch for epoch in range(1, 10) if every(epoch)] == [3, 6, 9]
    slow = CheckpointSchedule(None)
    now[0] += 60.0
    assert slow(1), "an epoch of a minute has one"


def test_run_with_rare_checkpoints_gives_the_same_result(tmp_path: Path) -> None:
    one, rare = (
        train(RUN, tmp_path / "one", progress=None),
        train(RUN, tmp_path / "rare", progress=None, checkpoint_every=None),
    )
    assert (one.test, one.validation) == (rare.test, rare.validation)
    assert [path.name for path in saved_checkpoints(tmp_path / "rare" / "checkpoint")] == ["epoch-3"]


def test_checkpoint_folder_that_cannot_be_read_is_an_error(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(path: object) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    events = (started / "events.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", exhausted)
        with pytest.raises(OSError, match="Too many open files"):
            train(RUN, started, progress=None)
    assert (started / "events.jsonl").read_bytes() == events, "the run was started again"
    assert saved_checkpoints(started / "missing") == []


def test_checkpoint_with_a_digest_is_checked_in_the_format_of_earlier_versions_too(started: Path) -> None:
    path = newest(started) / "state.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"format": UNSEALED}))
    with pytest.raises(ValueError, match=r"state\.json is damaged: its content differs from what was written"):
        train(RUN, started, progress=None)


def test_checkpoint_file_of_another_size_is_not_read(started: Path) -> None:
    os.truncate(newest(started) / "model.safetensors", 1 << 40)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: expected [0-9]+ bytes, got 1099511627776"):
        train(RUN, started, progress=None)
