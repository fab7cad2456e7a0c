"""The order of data: a pure function of (seed, epoch), every sample once, shorter streams repeated."""

from __future__ import annotations

import pytest
import torch

from paretorch.workloads import Accuracy, MeanAbsoluteError, Splits, TensorStream
from paretorch.workloads.streams import Stream, repeats, steps_per_epoch, training_batches


def numbers(count: int, task: str = "a") -> TensorStream:
    return TensorStream(torch.arange(count), {task: torch.arange(count)})


def seen(streams: tuple[Stream, ...], seed: int, epoch: int, size: int = 4) -> list[list[int]]:
    batches = list(training_batches(streams, size, seed, epoch))
    return [torch.cat([batch[place].inputs for batch in batches]).tolist() for place in range(len(streams))]


def test_an_epoch_has_every_sample_at_most_once_in_an_order_of_seed_and_epoch() -> None:
    (order,) = seen((numbers(22),), seed=3, epoch=5)
    assert len(order) == 20
    assert len(set(order)) == 20
    assert order != sorted(order)
    assert seen((numbers(22),), seed=3, epoch=5) == [order]
    assert seen((numbers(22),), seed=3, epoch=6) != [order]
    assert seen((numbers(22),), seed=4, epoch=5) != [order]


def test_inputs_and_targets_stay_together() -> None:
    for (batch,) in training_batches((numbers(22),), 4, 0, 0):
        assert batch.size == len(batch.inputs) == 4
        assert torch.equal(batch.inputs, batch.targets["a"])


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert [len(order) for order in seen((numbers(3),), 0, 0, size=8)] == [3]


def test_evaluation_takes_every_sample_as_they_lie() -> None:
    batches = list(numbers(10).batches(4, order=None))
    assert [batch.inputs.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch.size for batch in batches] == [4, 4, 2]


def test_a_shorter_stream_starts_again_in_a_new_order() -> None:
    streams = (numbers(16), numbers(8, "b"))
    long, short = seen(streams, 0, 0)
    assert sorted(long) == list(range(16))
    assert sorted(short[:8]) == sorted(short[8:]) == list(range(8))
    assert short[:8] != short[8:]
    assert steps_per_epoch(streams, 4) == 4
    assert repeats(streams, 4) == [1, 2]


def test_a_stream_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task 'a': expected 3 targets.*got 2"):
        TensorStream(torch.zeros(3), {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match="at least one sample"):
        TensorStream(torch.zeros(0), {})


def test_a_task_in_two_streams_is_refused() -> None:
    one = (numbers(3),)
    with pytest.raises(ValueError, match=r"'validation'.*\['a'\]"):
        Splits(one, (numbers(3), numbers(4)), one)
    with pytest.raises(ValueError, match="'test' has no task"):
        Splits(one, one, ())


def test_streams_that_no_task_needs_are_left_out() -> None:
    both = (numbers(3), numbers(4, "b"))
    assert [len(stream) for stream in Splits(both, both, both).only(("b",)).train] == [4]


def test_metrics_without_labels_are_not_numbers() -> None:
    accuracy, error = Accuracy(), MeanAbsoluteError()
    assert accuracy.compute() != accuracy.compute()
    error.update(torch.ones(2), torch.full((2,), torch.nan))
    assert error.compute() != error.compute()
    error.update(torch.tensor([1.0, 2.0]), torch.tensor([torch.nan, 5.0]))
    assert error.compute() == 3


def test_an_error_of_unlike_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        MeanAbsoluteError().update(torch.zeros(3, 1), torch.zeros(3))
