"""Streams and splits in memory: order by seed and epoch, every sample once, shorter streams repeated."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from paretorch.workloads import Accuracy, MeanAbsoluteError, Samples, Splits, TensorStream
from paretorch.workloads.streams import RankShare, Stream, one_pass, passes_per_epoch, steps_per_epoch, training_batches


def range_stream(count: int, task: str = "a") -> TensorStream:
    return TensorStream(torch.arange(count), {task: torch.arange(count)})


def batches_of(streams: tuple[Stream, ...], seed: int, epoch: int, size: int = 4) -> list[list[int]]:
    batches = list(training_batches(streams, size, seed, epoch))
    return [torch.cat([batch[place].inputs for batch in batches]).tolist() for place in range(len(streams))]


def test_stream_epoch_has_every_sample_at_most_once_in_the_order_of_seed_and_epoch() -> None:
    (order,) = batches_of((range_stream(22),), seed=3, epoch=5)
    assert len(order) == 20
    assert len(set(order)) == 20
    assert order != sorted(order)
    assert batches_of((range_stream(22),), seed=3, epoch=5) == [order]
    assert batches_of((range_stream(22),), seed=3, epoch=6) != [order]
    assert batches_of((range_stream(22),), seed=4, epoch=5) != [order]


def test_stream_inputs_and_targets_have_the_same_order() -> None:
    for (batch,) in training_batches((range_stream(22),), 4, 0, 0):
        assert batch.size == len(batch.inputs) == 4
        assert torch.equal(batch.inputs, batch.targets["a"])


def test_stream_shorter_than_a_batch_is_one_batch() -> None:
    assert [len(order) for order in batches_of((range_stream(3),), 0, 0, size=8)] == [3]


def test_stream_without_order_has_every_sample_in_the_stored_order() -> None:
    batches = list(range_stream(10).batches(4, order=None))
    assert [batch.inputs.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch.size for batch in batches] == [4, 4, 2]


class Silent(TensorStream):
    """A stream that gives no batch in training."""

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        return iter(()) if order is not None else super().batches(size, order)


def test_training_batches_of_a_stream_without_batches_name_it() -> None:
    streams = (range_stream(8), Silent(torch.arange(8), {"b": torch.arange(8), "c": torch.arange(8)}))
    with pytest.raises(
        ValueError, match=r"the stream of 'b', 'c' \(Silent\): batches\(\) gave no batch in a pass of training"
    ):
        list(training_batches(streams, 4, 0, 0))
    with pytest.raises(ValueError, match=r"gave no batch in a pass of evaluation"):
        list(one_pass(RankShare(Empty(torch.arange(8), {"b": torch.arange(8)}), 0, 2), 4, order=None))


class Empty(TensorStream):
    """A stream that gives no batch."""

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        return iter(())


def test_training_batches_repeat_a_shorter_stream_in_a_new_order() -> None:
    streams = (range_stream(16), range_stream(8, "b"))
    long, short = batches_of(streams, 0, 0)
    assert sorted(long) == list(range(16))
    assert sorted(short[:8]) == sorted(short[8:]) == list(range(8))
    assert short[:8] != short[8:]
    assert steps_per_epoch(streams, 4) == 4
    assert passes_per_epoch(streams, 4) == [1, 2]


def test_stream_of_unequal_lengths_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"task 'a': expected 3 targets.*got 2"):
        TensorStream(torch.zeros(3), {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match="at least one sample"):
        TensorStream(torch.zeros(0), {})


@dataclass(frozen=True)
class Shifted(TensorStream):
    by: float = 0.0

    def batches(self, size: int, order: int | None) -> Iterator[Samples]:
        for samples in super().batches(size, order):
            yield Samples(samples.inputs + self.by, samples.targets, samples.size)


class Doubled(TensorStream):
    def __init__(self, count: int) -> None:
        super().__init__(2 * torch.arange(count), {"a": torch.arange(count)})


def test_stream_subclass_keeps_its_class_on_a_device() -> None:
    shifted = Shifted(torch.arange(3), {"a": torch.arange(3)}, by=0.5)
    streams = Splits((shifted,), (Doubled(3),), (range_stream(3),)).to(torch.device("cpu"))
    (batch,) = streams.train[0].batches(3, order=None)
    assert batch.inputs.tolist() == [0.5, 1.5, 2.5]
    assert isinstance(streams.validation[0], Doubled)
    moved = shifted.to(torch.device("meta"))
    assert (moved.inputs.device.type, moved.targets["a"].device.type, moved.by) == ("meta", "meta", 0.5)
    assert shifted.inputs.device.type == "cpu"


def test_splits_without_streams_are_errors() -> None:
    one = (range_stream(3),)
    with pytest.raises(ValueError, match=r"'validation': expected a tuple of streams, got TensorStream; .*\(stream,\)"):
        Splits(one, range_stream(3), one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'test': expected streams, .*got Tensor\. .*TensorStream\(inputs, targets\)"):
        Splits(one, one, (torch.zeros(3),))  # type: ignore[arg-type]


def test_splits_with_a_task_in_two_streams_are_errors() -> None:
    one = (range_stream(3),)
    with pytest.raises(ValueError, match=r"'validation'.*\['a'\]"):
        Splits(one, (range_stream(3), range_stream(4)), one)
    with pytest.raises(ValueError, match="'test' has no task"):
        Splits(one, one, ())


def test_splits_omit_streams_without_selected_tasks() -> None:
    both = (range_stream(3), range_stream(4, "b"))
    assert [len(stream) for stream in Splits(both, both, both).only(("b",)).train] == [4]


def test_metrics_without_labels_are_nan() -> None:
    accuracy, error = Accuracy(), MeanAbsoluteError()
    assert accuracy.compute() != accuracy.compute()
    error.update(torch.ones(2), torch.full((2,), torch.nan))
    assert error.compute() != error.compute()
    error.update(torch.tensor([1.0, 2.0]), torch.tensor([torch.nan, 5.0]))
    assert error.compute() == 3


def test_error_metric_of_different_shapes_is_an_error() -> None:
    with pytest.raises(ValueError, match="one shape"):
        MeanAbsoluteError().update(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize(
    ("module", "former", "name"),
    [
        ("streams", "Loading", "LoadingStatistics"),
        ("streams", "Loads", "LoadingStream"),
        ("streams", "mixed", "combined_seed"),
        ("streams", "repeats", "passes_per_epoch"),
        ("metrics", "Detected", "BinaryAccuracy"),
    ],
)
def test_former_names_of_workloads_warn_and_are_the_same_object(module: str, former: str, name: str) -> None:
    found = importlib.import_module(f"paretorch.workloads.{module}")
    with pytest.warns(FutureWarning, match=f"{former} is now .*{name}"):
        assert getattr(found, former) is getattr(found, name)
