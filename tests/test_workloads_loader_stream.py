"""LoaderStream: the same samples as a plain loop, order and draws by seed, missing labels, resume, and clear errors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

from paretorch.reports.reading.load import load
from paretorch.storage.nested_state import pack, unpack
from paretorch.training import Run, train
from paretorch.workloads import (
    Accuracy,
    LoaderStream,
    MeanAbsoluteError,
    Metric,
    MultiTaskModel,
    Samples,
    Splits,
    TensorStream,
    Workload,
)
from paretorch.workloads.streams import Stream, rank_share, steps_per_epoch, training_batches


class Numbers(Dataset[dict[str, Tensor]]):
    """Samples that count how often they are read; with noise from all three generators."""

    def __init__(self, count: int = 22, noise: float = 0.0) -> None:
        self.count, self.noise = count, noise
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.reads.append(index)
        draws = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return {
            "x": torch.tensor([index + self.noise * draws], dtype=torch.float64),
            "a": torch.tensor(index % 2),
            "b": torch.tensor(float(index)),
        }


class Stored(IterableDataset[dict[str, Tensor]]):
    """Samples in one order, without a length."""

    def __init__(self, count: int = 22) -> None:
        self.count = count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (Numbers(self.count)[index] for index in range(self.count))


class Shuffled(Stored):
    """The same in an order that ``set_epoch`` decides."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return (Numbers(self.count)[index] for index in order)


class OwnShuffle(Stored):
    """The same in an order that nothing decides."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = random.SystemRandom().sample(range(self.count), self.count)
        return (Numbers(self.count)[index] for index in order)


def order_of(batches: Any) -> list[int]:
    return [int(value) for batch in batches for value in batch.targets["b"]]


def epoch_of(stream: Stream, seed: int = 3, epoch: int = 0, size: int = 4) -> list[int]:
    return order_of(batch for (batch,) in training_batches((stream,), size, seed, epoch))


SOURCES: dict[str, Callable[[], Any]] = {
    "data set": Numbers,
    "list": lambda: [Numbers()[index] for index in range(22)],
    "tuples": lambda: [(row["x"], row["a"], row["b"]) for row in (Numbers()[index] for index in range(22))],
    "loader": lambda: DataLoader(Numbers(), batch_size=7),
    "shuffled loader": lambda: DataLoader(Numbers(), batch_size=7, shuffle=True),
    "iterable": Stored,
    "loader of iterable": lambda: DataLoader(Stored(), batch_size=7),
    "batches": lambda: list_of_batches(7),
}


class Batches:
    """An iterable of batches that is no DataLoader."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(Numbers(), batch_size=self.size))


def list_of_batches(size: int) -> Batches:
    return Batches(size)


@pytest.mark.parametrize("kind", SOURCES)
def test_loader_stream_evaluates_every_sample_once_in_the_stored_order(kind: str) -> None:
    stream = LoaderStream(SOURCES[kind](), ("a", "b"))
    batches = list(stream.batches(5, order=None))
    assert order_of(batches) == list(range(22))
    assert [batch.size for batch in batches] == [5, 5, 5, 5, 2]
    for batch in batches:
        assert torch.equal(batch.inputs[:, 0], batch.targets["b"].double())
        assert torch.equal(batch.targets["a"], batch.targets["b"].long() % 2)


@pytest.mark.parametrize("kind", ["data set", "list", "tuples", "shuffled loader"])
def test_loader_stream_of_indexed_data_has_the_order_of_a_tensor_stream(kind: str) -> None:
    rows = TensorStream(torch.arange(22), {"b": torch.arange(22)})
    stream = LoaderStream(SOURCES[kind](), ("a", "b"))
    assert stream.is_paired
    for seed, epoch in ((3, 0), (3, 5), (8, 0)):
        assert epoch_of(stream, seed, epoch) == epoch_of(rows, seed, epoch)


def test_loader_stream_of_a_loader_without_shuffle_keeps_the_stored_order() -> None:
    stream = LoaderStream(DataLoader(Numbers(), batch_size=7), ("a", "b"))
    assert stream.is_paired
    assert epoch_of(stream, seed=5) == list(range(20))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_stream_draws_depend_on_seed_and_epoch_only(workers: int) -> None:
    expected = torch.cat([batch.inputs for batch in LoaderStream(Numbers(noise=0.1), ("a", "b")).batches(4, order=9)])
    state = torch.get_rng_state(), random.getstate()
    stream = LoaderStream(Numbers(noise=0.1), ("a", "b"), workers=workers)
    noisy = torch.cat([batch.inputs for batch in stream.batches(4, order=9)])
    assert torch.equal(noisy, expected)
    assert len(set((noisy - noisy.floor()).flatten().tolist())) == 20  # not the same draws for each sample
    other = torch.cat([batch.inputs for batch in stream.batches(4, order=10)])
    assert not torch.equal(noisy.sort(dim=0).values, other.sort(dim=0).values)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_loader_stream_skips_batches_without_reading_them() -> None:
    rows = Numbers()
    whole = order_of(LoaderStream(rows, ("a", "b")).batches(4, order=2))
    rows.reads.clear()
    assert order_of(LoaderStream(rows, ("a", "b")).batches(4, order=2, start=3)) == whole[12:]
    assert len(rows.reads) == 8


@pytest.mark.parametrize("ranks", [2, 3])
def test_loader_stream_shares_of_ranks_are_the_batch_and_are_read_once(ranks: int) -> None:
    rows = Numbers(noise=0.1)
    whole = list(LoaderStream(rows, ("a", "b")).batches(7, order=2))
    rows.reads.clear()
    streams = [rank_share(LoaderStream(rows, ("a", "b")), rank, ranks) for rank in range(ranks)]
    shares = [list(stream.batches(7, order=2)) for stream in streams]
    assert sorted(rows.reads) == sorted(order_of(whole))
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
        assert [part.whole for part in parts] == [batch.size] * ranks
    assert [len(stream) for stream in streams] == [22] * ranks


@pytest.mark.parametrize("kind", ["iterable", "loader of iterable", "batches"])
def test_loader_stream_shares_of_iterated_sources_are_the_batch(kind: str) -> None:
    streams = [rank_share(LoaderStream(SOURCES[kind](), ("a", "b"), steps_per_epoch=4), rank, 2) for rank in range(2)]
    first, second = (list(stream.batches(5, order=1)) for stream in streams)
    joined = [int(value) for pair in zip(first, second, strict=True) for part in pair for value in part.targets["b"]]
    assert joined == list(range(20))


def test_loader_stream_hands_collate_function_and_workers_on() -> None:
    rows = [torch.tensor([float(index), 2.0 * index]) for index in range(9)]

    def collate(samples: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        joined = torch.stack(samples)
        return joined[:, :1], {"b": joined[:, 1]}

    for stream in (
        LoaderStream(rows, ("b",), collate_fn=collate, workers=1),
        LoaderStream(DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=1), ("b",)),  # type: ignore[arg-type]
    ):
        batches = list(stream.batches(4, order=None))
        assert [batch.targets["b"].tolist() for batch in batches] == [[0, 2, 4, 6], [8, 10, 12, 14], [16]]


def test_loader_stream_converts_batches_with_a_function() -> None:
    rows = TensorDataset(torch.arange(6.0), torch.arange(12.0).view(6, 2))
    stream = LoaderStream(
        rows, ("left", "right"), to_batch=lambda b: ({"x": b[0]}, {"left": b[1][:, 0], "right": b[1][:, 1]})
    )
    batch = next(stream.batches(6, order=None))
    assert batch.inputs["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.targets["right"].tolist() == [1, 3, 5, 7, 9, 11]


# --- missing labels ------------------------------------------------------------------------------------------------------


def test_loader_stream_missing_labels_are_nan_or_minus_one() -> None:
    rows = [
        {"x": [float(i)], "class": None if i % 3 == 0 else i % 3, "size": None if i % 2 else i / 4} for i in range(9)
    ]
    batch = next(LoaderStream(rows, ("class", "size")).batches(9, order=None))
    assert batch.targets["class"].tolist() == [-1, 1, 2] * 3
    assert batch.targets["class"].dtype == torch.int64
    assert batch.targets["size"].isnan().tolist() == [False, True] * 4 + [False]
    assert batch.targets["size"].dtype == torch.float32


def test_loader_stream_batch_without_any_label_has_no_target_of_the_task() -> None:
    rows = [{"x": [float(i)], "a": None if i < 4 else i, "b": 0.5} for i in range(8)]
    first, second = LoaderStream(rows, ("a", "b")).batches(4, order=None)
    assert set(first.targets) == {"b"}
    assert second.targets["a"].tolist() == [4, 5, 6, 7]


def test_loader_stream_joins_batches_with_and_without_labels() -> None:
    batches: Any = [
        {"x": torch.zeros(3, 1), "a": None, "b": torch.ones(3)},
        {"x": torch.zeros(3, 1), "a": torch.ones(3, dtype=torch.int64), "b": torch.ones(3)},
    ]
    whole = next(LoaderStream(DataLoader(batches, batch_size=None), ("a", "b"), is_paired=True).batches(6, order=None))
    assert whole.targets["a"].tolist() == [-1, -1, -1, 1, 1, 1]


# --- data without a length, or with steps --------------------------------------------------------------------------------

UNSIZED: dict[str, Callable[[], Any]] = {
    "iterable": Stored,
    "set_epoch": Shuffled,
    "loader": lambda: DataLoader(Stored(), batch_size=4),
    "loader of other batches": lambda: DataLoader(Stored(), batch_size=3),
    "data set": Numbers,
    "batches": lambda: Batches(4),
}


@pytest.mark.parametrize("kind", UNSIZED)
def test_loader_stream_epochs_of_steps_continue_and_resume(kind: str) -> None:
    def stream() -> LoaderStream:
        return LoaderStream(UNSIZED[kind](), ("a", "b"), steps_per_epoch=3, is_paired=True)

    whole = stream()
    assert steps_per_epoch((whole,), 4) == 3
    epochs = [epoch_of(whole, epoch=epoch) for epoch in range(4)]
    assert [len(epoch) for epoch in epochs] == [12] * 4
    assert len(set(epochs[0] + epochs[1][:8])) == 20  # one pass of five batches
    for begin in (1, 2, 3):
        resumed = stream()
        assert [epoch_of(resumed, epoch=epoch) for epoch in range(begin, 4)] == epochs[begin:]
    stopped = stream()
    for epoch in range(3):
        epoch_of(stopped, epoch=epoch)
    state = unpack(*pack(stopped.state_dict()))
    resumed = stream()
    resumed.load_state_dict(state)
    assert epoch_of(resumed, epoch=3) == epochs[3]


def test_loader_stream_state_saves_reading_the_passes_before() -> None:
    class Counted(Stored):
        read = 0

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for row in super().__iter__():
                Counted.read += 1
                yield row

    stream = LoaderStream(Counted(), ("a", "b"), steps_per_epoch=3, is_paired=True)
    for epoch in range(8):
        epoch_of(stream, epoch=epoch)
    resumed = LoaderStream(Counted(), ("a", "b"), steps_per_epoch=3, is_paired=True)
    resumed.load_state_dict(stream.state_dict())
    Counted.read = 0
    epoch_of(resumed, epoch=8)
    assert Counted.read <= 44  # at most the begun pass and the next one


def test_loader_stream_evaluation_of_steps_reads_the_same_batches() -> None:
    stream = LoaderStream(Shuffled(), ("a", "b"), steps_per_epoch=2)
    assert order_of(stream.batches(4, None)) == order_of(stream.batches(4, None))
    assert len(order_of(stream.batches(4, None))) == 8


def test_loader_stream_of_set_epoch_is_paired_and_follows_the_seed() -> None:
    first, second = (LoaderStream(Shuffled(), ("a", "b"), steps_per_epoch=5) for _ in range(2))
    assert first.is_paired
    assert epoch_of(first, seed=1) == epoch_of(second, seed=1)
    assert epoch_of(first, seed=2) != epoch_of(second, seed=1)


def test_loader_stream_in_an_order_of_its_own_restarts_with_a_note() -> None:
    stream = LoaderStream(OwnShuffle(), ("a", "b"), steps_per_epoch=3)
    assert not stream.is_paired
    epoch_of(stream, epoch=0)
    epoch_of(stream, epoch=1)  # continues without a warning
    with pytest.warns(UserWarning, match="an order of its own, so the training cannot continue where it stopped"):
        epoch_of(LoaderStream(OwnShuffle(), ("a", "b"), steps_per_epoch=3), epoch=1)


def test_loader_stream_seeds_the_samplers_of_a_loader() -> None:
    def loaders() -> list[LoaderStream]:
        weights = torch.utils.data.WeightedRandomSampler([1.0] * 22, 22)
        batches = torch.utils.data.BatchSampler(RandomSampler(Numbers()), 4, drop_last=True)
        return [
            LoaderStream(DataLoader(Numbers(), batch_size=4, sampler=weights), ("a", "b")),
            LoaderStream(DataLoader(Numbers(), batch_sampler=batches), ("a", "b"), steps_per_epoch=5),
        ]

    for first, second in zip(loaders(), loaders(), strict=True):
        assert first.is_paired
        torch.manual_seed(random.SystemRandom().randrange(1 << 30))
        assert epoch_of(first, seed=1) == epoch_of(second, seed=1)
        assert epoch_of(first, seed=2) != epoch_of(second, seed=1)


# --- other packages ------------------------------------------------------------------------------------------------------


def face(count: int = 20) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict(
        {
            "x": [[float(i), 1.0] for i in range(count)],
            "y": [None if i % 3 == 0 else i % 5 for i in range(count)],
            "z": [None if i % 4 == 0 else i / 2 for i in range(count)],
        }
    )


FACE_FORMS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda data: data,
    "torch": lambda data: data.with_format("torch"),
    "iterable": lambda data: data.to_iterable_dataset(),
    "iterable torch": lambda data: data.to_iterable_dataset().with_format("torch"),
    "loader": lambda data: DataLoader(data.with_format("torch"), batch_size=3, num_workers=1),
}


@pytest.mark.parametrize("form", FACE_FORMS)
def test_loader_stream_reads_hugging_face_data_sets_with_missing_labels(form: str) -> None:
    stream = LoaderStream(FACE_FORMS[form](face()), ("y", "z"))
    batches = list(stream.batches(1, order=None)) + list(stream.batches(8, order=None))
    for batch in batches:
        indices = batch.inputs[:, 0].long().tolist()
        assert batch.targets["y"].dtype == torch.int64
        assert batch.targets["y"].tolist() == [-1 if i % 3 == 0 else i % 5 for i in indices]
        assert batch.targets["z"].nan_to_num(-7).tolist() == [-7 if i % 4 == 0 else i / 2 for i in indices]
    assert sum(batch.size for batch in batches) == 40


def test_loader_stream_shuffles_hugging_face_data_by_seed() -> None:
    stored = face()
    assert epoch_of_x(LoaderStream(stored, ("y", "z"))) == epoch_of_x(
        TensorStream(torch.arange(20.0)[:, None], {"y": torch.zeros(20)})
    )
    streams = [
        LoaderStream(stored.to_iterable_dataset().shuffle(seed=1, buffer_size=20), ("y", "z"), steps_per_epoch=4)
        for _ in range(2)
    ]
    assert streams[0].is_paired
    assert epoch_of_x(streams[0]) == epoch_of_x(streams[1])
    assert epoch_of_x(streams[0]) != epoch_of_x(streams[1], seed=9)


def epoch_of_x(stream: Stream, seed: int = 3) -> list[float]:
    return [float(value) for (batch,) in training_batches((stream,), 4, seed, 0) for value in batch.inputs[:, 0]]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("shuffle", [False, True])
def test_loader_stream_uses_the_state_of_a_stateful_loader(workers: int, shuffle: bool) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def stream(rows: Any) -> LoaderStream:
        loader = stateful(rows, batch_size=4, shuffle=shuffle, num_workers=workers)
        return LoaderStream(loader, ("a", "b"), steps_per_epoch=3)

    whole = stream(Numbers())
    epochs = [epoch_of(whole, epoch=epoch) for epoch in range(4)]
    stopped, rows = stream(Numbers()), Numbers()
    for epoch in range(3):
        epoch_of(stopped, epoch=epoch)
    resumed = stream(rows)
    resumed.load_state_dict(unpack(*pack(stopped.state_dict())))
    assert resumed._position.restored is not None
    assert resumed._position.restored["loader"] is not None
    assert epoch_of(resumed, epoch=3) == epochs[3]
    if not workers:
        assert len(rows.reads) <= 16  # without what was read before


# --- bad input -----------------------------------------------------------------------------------------------------------


class Unseeded(Sampler[int]):
    def __init__(self, data: Any) -> None:
        del data

    def __len__(self) -> int:
        return 22

    def __iter__(self) -> Iterator[int]:
        return iter(range(22))


class Nothing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


BAD: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "other keys": (
        lambda: DataLoader([{"x": torch.zeros(1), "c": torch.zeros(())}] * 4, batch_size=2),  # type: ignore[arg-type]
        {},
        r"no target of task 'a'; its keys are x, c\..*to_batch=",
    ),
    "another input": (Numbers, {"inputs": "image"}, r"no key 'image', which inputs= names; its keys are x, a, b"),
    "no inputs": (lambda: [{"a": 1, "b": 2}] * 4, {}, "keys of tasks only, a, b, and no inputs"),
    "nothing": (Nothing, {"steps_per_epoch": 2}, "yields nothing"),
    "a used generator": (lambda: iter([]), {"steps_per_epoch": 2}, r"yields nothing\. A generator can be read once"),
    "no rows": (list, {}, "no sample, so the stream would yield nothing"),
    "no length": (Stored, {}, r"length of the data is unknown.*steps_per_epoch=1000"),
    "text as inputs": (lambda: [{"x": "text", "a": 1, "b": 2}] * 4, {}, r"expected tensors, got a str in the inputs"),
    "text as target": (lambda: [{"x": 1.0, "a": "cat", "b": 2}] * 4, {}, r"task 'a': expected labels.*got a str"),
    "unequal rows": (
        lambda: DataLoader([{"x": torch.zeros(3, 1), "a": torch.zeros(2), "b": torch.zeros(3)}], batch_size=None),  # type: ignore[arg-type]
        {"steps_per_epoch": 1},
        r"task 'a' has 2 rows where others have 3",
    ),
    "too few values": (lambda: [(1.0, 2.0)] * 4, {}, r"inputs followed by 2 targets; got a tuple of 2 values"),
    "an order that no seed sets": (
        lambda: DataLoader(Numbers(), batch_size=2, sampler=Unseeded(None)),
        {},
        r"decided by a Unseeded, which no seed can set.*is_paired=False",
    ),
    "a share per rank": (
        lambda: DataLoader(Numbers(), sampler=torch.utils.data.DistributedSampler(Numbers(), num_replicas=2, rank=0)),
        {},
        r"DistributedSampler, which gives each rank a share.*without it",
    ),
    "workers of a loader": (lambda: DataLoader(Numbers()), {"workers": 2}, "workers is an option of a data set"),
    "no source": (lambda: 3, {}, "expected a data set .* got int"),
    "a wrong conversion": (
        Numbers,
        {"to_batch": lambda batch: batch["x"]},
        r"to_batch\(batch\) returns \(inputs, targets\)",
    ),
    "a text as tasks": (Numbers, {"tasks": "a"}, r"as in \('a',\), got the text 'a'"),
    "no step": (Numbers, {"steps_per_epoch": 0}, "steps_per_epoch is at least 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_loader_stream_bad_input_is_one_sentence_with_a_cure(kind: str) -> None:
    source, options, message = BAD[kind]
    with pytest.raises(ValueError, match=message):  # noqa: PT012 - some sources show their content when they are read
        stream = LoaderStream(source(), **{"tasks": ("a", "b"), **options})
        epoch_of(stream, size=2)


def test_loader_stream_batches_of_other_shapes_cannot_be_joined() -> None:
    batches = [{"x": torch.zeros(3, width), "a": torch.zeros(3)} for width in (2, 5)]
    stream = LoaderStream(DataLoader(batches, batch_size=None), ("a",), steps_per_epoch=1)  # type: ignore[arg-type]
    assert [batch.inputs.shape[1] for batch in stream.batches(3, order=0)] == [2, 5]
    with pytest.raises(ValueError, match=r"different shapes.*--batch-size"):
        list(stream.batches(6, order=0))


# --- runs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded(Workload):
    """Two tasks from a loader.

    Args:
        kind: of the source.
    """

    kind: str = "data set"
    title = "for tests of loaders"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("a", "b")

    def data(self) -> Splits:
        sources = {**UNSIZED, "own order": OwnShuffle}
        steps = {} if self.kind == "data set" else {"steps_per_epoch": 3}
        stream: LoaderStream = LoaderStream(sources[self.kind](), self.tasks, **steps)  # type: ignore[arg-type]
        return Splits((stream,), (LoaderStream(Numbers(8), self.tasks),), (LoaderStream(Numbers(8), self.tasks),))

    def model(self) -> nn.Module:
        heads: dict[str, nn.Module] = {"a": nn.Linear(3, 2), "b": nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))}
        return MultiTaskModel(nn.Sequential(nn.Linear(1, 3), nn.Tanh()), heads).double()

    def losses(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        losses = {}
        if "a" in outputs:
            losses["a"] = functional.cross_entropy(outputs["a"], targets["a"])
        if "b" in outputs:
            losses["b"] = functional.mse_loss(outputs["b"], targets["b"].double())
        return losses

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        return {"a": (Accuracy(),), "b": (MeanAbsoluteError(),)}


def run_on(kind: str, **changes: Any) -> Run:
    return Run(**{"workload": __name__, "options": {"kind": kind}, "epochs": 3, "batch_size": 4, **changes})


@pytest.mark.parametrize("kind", ["data set", "set_epoch"])
def test_loader_stream_run_resumes_exactly(kind: str, tmp_path: Path) -> None:
    def stop(done: int, planned: int) -> None:
        del planned
        if done == 2:
            raise KeyboardInterrupt

    whole = train(run_on(kind), tmp_path / "whole", progress=None)
    assert "runs are not paired" not in whole.facts
    with pytest.raises(KeyboardInterrupt):
        train(run_on(kind), tmp_path / "stopped", progress=stop)
    resumed = train(run_on(kind), tmp_path / "stopped", progress=None)
    assert [epoch.losses for epoch in resumed.history] == [epoch.losses for epoch in whole.history]
    assert resumed.test == whole.test


def test_loader_stream_report_notes_that_runs_are_not_paired(tmp_path: Path) -> None:
    for seed in range(2):
        for method in ("Equal()", "MGDA()"):
            run = run_on("own order", epochs=1, seed=seed, method=method)
            train(run, tmp_path / "own" / f"{seed}-{method[:2]}", progress=None)
    note = "Runs are not paired: the data set gives its samples in an order of its own."
    assert note in load(tmp_path / "own").plan.notes
    for method in ("Equal()", "MGDA()"):
        train(run_on("data set", epochs=1, method=method), tmp_path / "paired" / method[:2], progress=None)
    assert note not in load(tmp_path / "paired").plan.notes


def test_loader_stream_run_checks_losses_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loaded, "losses", lambda self, outputs, targets: [])
    with pytest.raises(ValueError, match=r"Loaded\.losses\(\): expected a dict"):
        train(run_on("data set"), tmp_path, progress=None)


def test_samples_share_keeps_every_sample_once() -> None:
    batch = Samples({"x": torch.arange(7)}, {"a": torch.arange(7)}, 7)
    parts = [batch.share(rank, 3) for rank in range(3)]
    assert torch.cat([part.inputs["x"] for part in parts]).tolist() == list(range(7))
    assert [part.size for part in parts] == [2, 2, 3]
    with pytest.raises(ValueError, match="a batch of 2 samples cannot be divided among 3 ranks"):
        Samples(torch.zeros(2), {}, 2).share(0, 3)
