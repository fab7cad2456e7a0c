"""Streams of files: order and augmentation by the seed alone, independent of workers; unreadable images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from image_folders import SMALL, shared_root, truncate, write_both
from paretorch.workloads import Samples
from paretorch.workloads.imagenet_coco import TASKS, ImagenetCoco
from paretorch.workloads.loading.image_samplers import SquareSampler
from paretorch.workloads.loading.read_stream import ReadStream
from paretorch.workloads.streams import training_batches
from tensors import equal_tensors


def names_of(stream: ReadStream) -> list[str]:
    assert isinstance(stream.sampler, SquareSampler)
    return [item.name for item in stream.sampler.reader.items]


def streams(**options: object) -> tuple[ReadStream, ...]:
    made = ImagenetCoco(**{"root": shared_root(), **SMALL, **options}).data().train
    assert all(isinstance(stream, ReadStream) for stream in made)
    return made  # type: ignore[return-value]


def tensors(batches: Sequence[Samples]) -> list[Tensor]:
    return [tensor for batch in batches for tensor in (batch.inputs, *batch.targets.values())]


def equal_batches(left: Sequence[Samples], right: Sequence[Samples]) -> bool:
    return len(left) == len(right) and equal_tensors(tensors(left), tensors(right))


@pytest.mark.parametrize("place", [0, 1], ids=TASKS)
def test_stream_batches_conform_to_the_protocol(place: int) -> None:
    stream = streams()[place]
    batches = list(stream.batches(48, order=3))
    assert [batch.size for batch in batches] == [48, 48, 48]
    for batch in batches:
        assert batch.inputs.shape == (48, 3, 32, 32)
        assert batch.inputs.dtype == torch.uint8
        (target,) = batch.targets.values()
        assert target.dtype == torch.int64
        assert target.shape == ((48,), (48, 32, 32))[place]
    labels = torch.cat([batch.targets[TASKS[place]].flatten() for batch in batches]).unique().tolist()
    assert labels == ([0, 1, 2], [-1, 0, 7, 8, 12, 15])[place]
    assert [batch.size for batch in stream.batches(48, order=None)] == [48, 48, 48, 16]


def test_stream_batches_depend_on_the_order_alone() -> None:
    for stream in streams(augmentation="zoom"):
        assert equal_batches(list(stream.batches(40, 5)), list(stream.batches(40, 5)))
        assert not equal_batches(list(stream.batches(40, 5)), list(stream.batches(40, 6)))
        assert equal_batches(list(stream.batches(40, None)), list(stream.batches(40, None)))


def test_stream_augmentation_differs_between_epochs() -> None:
    stream = streams()[0]
    drawn = [next(stream.batches(160, order)).inputs for order in (1, 2)]
    assert {image.numpy().tobytes() for image in drawn[0]} != {image.numpy().tobytes() for image in drawn[1]}


@pytest.mark.parametrize("workers", [1, 3])
def test_stream_batches_do_not_depend_on_workers(workers: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for here, there in zip(streams(augmentation="zoom"), streams(augmentation="zoom", workers=workers), strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # this machine may have fewer cores
            assert equal_batches(list(here.batches(40, 5)), list(there.batches(40, 5)))
        assert there.loading().samples == here.loading().samples == 160
        assert there.loading().speed > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_stream_copies_on_a_device_share_their_counts() -> None:
    stream = streams()[0]
    list(stream.to(torch.device("cpu")).batches(40, 5))
    assert stream.loading().samples == 160


def test_training_batches_repeat_the_shorter_stream() -> None:
    long, short = streams()
    reader = replace(short.sampler.reader, items=short.sampler.reader.items[:50])  # type: ignore[attr-defined]
    short = replace(short, sampler=replace(short.sampler, reader=reader))  # type: ignore[type-var]
    steps = list(training_batches((long, short), 40, 0, 0))
    assert len(steps) == 4
    assert [sum(part.size for part in step) for step in steps] == [80, 80, 80, 80]


def test_stream_omits_names_and_counts_unreadable_images(tmp_path: Path) -> None:
    write_both(tmp_path, train=60, val=6)
    options = {"root": str(tmp_path), **SMALL}
    stream = streams(**options)[0]
    broken = names_of(stream)[7]
    truncate(tmp_path / "imagenet" / broken)
    with pytest.warns(UserWarning, match=f"classification, train: {broken} is left out: .*truncated"):
        batches = list(stream.batches(40, order=None))
    assert [batch.size for batch in batches] == [39, 40, 40, 40]
    whole = next(streams()[0].batches(160, None))
    kept = [place for place in range(160) if place != 7]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), whole.inputs[kept])
    assert list(stream.loading().unreadable) == [broken]
    assert len(list(stream.batches(40, order=None))) == 4  # without a second warning


def test_stream_stops_above_one_percent_of_unreadable_images(tmp_path: Path) -> None:
    write_both(tmp_path, train=60, val=6)
    stream = streams(root=str(tmp_path))[1]
    for place in (3, 80):
        truncate(tmp_path / "coco" / names_of(stream)[place])
    with (
        pytest.warns(UserWarning, match="is left out"),
        pytest.raises(
            ValueError, match=r"segmentation, train: 2 of 160 images cannot be read, more than 1 %"
        ) as caught,
    ):
        list(stream.batches(40, order=None))
    assert names_of(stream)[3] in str(caught.value)
    assert names_of(stream)[80] in str(caught.value)


def test_stream_omits_batches_without_readable_images(tmp_path: Path) -> None:
    write_both(tmp_path, train=60, val=6)
    stream = streams(root=str(tmp_path))[0]
    truncate(tmp_path / "imagenet" / names_of(stream)[3])
    with pytest.warns(UserWarning, match="is left out"):
        assert len(list(stream.batches(1, order=None))) == 159
