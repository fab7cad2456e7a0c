"""The digits workload: disjoint splits, overlaid pairs, and exact ink."""

from __future__ import annotations

import pytest
import torch

from paretorch.workloads.digits import Digits, _members, _shipped
from paretorch.workloads.generated.overlays import overlay
from stored_streams import only_stream


def test_digits_splits_are_a_partition_of_the_images() -> None:
    images, classes = _shipped()
    assert images.shape == (1797, 8, 8)
    assert (float(images.min()), float(images.max())) == (0, 16)
    assert sorted(classes.unique().tolist()) == list(range(10))
    members = _members(len(images), seed=0)
    assert torch.cat(list(members.values())).sort().values.tolist() == list(range(1797))


def test_digits_sizes_are_those_of_the_protocol_and_facts_count_images() -> None:
    splits = Digits().data()
    assert [len(getattr(splits, name)[0]) for name in ("train", "validation", "test")] == [10_000, 2_000, 2_000]
    distinct = [splits.facts[f"distinct digits, {name}"] for name in ("train", "validation", "test")]
    assert distinct == [1258, 270, 269]


def test_digits_test_images_are_not_in_training() -> None:
    images, _ = _shipped()
    members = _members(len(images), seed=0)
    known = {images[index].numpy().tobytes() for index in members["train"].tolist()}
    assert not known & {images[index].numpy().tobytes() for index in members["test"].tolist()}


def test_digits_pairs_are_overlaid_by_their_maximum() -> None:
    digits = torch.arange(2 * 4).reshape(2, 2, 2).float()
    pairs = overlay(digits, torch.tensor([0, 1]), count=40, canvas=3, levels=7, seed=1)
    for image, left, right, ink in zip(pairs.images, pairs.left, pairs.right, pairs.ink, strict=True):
        for row in range(3):
            for column in range(3):
                upper = digits[left, row, column] if row < 2 and column < 2 else torch.tensor(0.0)
                lower = digits[right, row - 1, column - 1] if row and column else torch.tensor(0.0)
                assert float(image[0, row, column]) == pytest.approx(float(max(upper, lower)) / 7)
        assert float(ink) == float(digits[right].sum())
    assert {(int(a), int(b)) for a, b in zip(pairs.left, pairs.right, strict=True)} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_digits_pixels_are_grey_levels_of_the_source() -> None:
    levels = only_stream(Digits(train=50), "train").inputs * 16
    assert torch.equal(levels, levels.round())
    assert levels.shape == (50, 1, 11, 11)


def test_digits_data_depend_on_the_data_seed() -> None:
    first, second = (only_stream(Digits(train=50, data_seed=seed), "train").inputs for seed in (0, 1))
    assert not torch.equal(first, second)


def test_digits_ink_loss_has_another_scale() -> None:
    workload = Digits(ink=True, train=200, validation=200)
    torch.manual_seed(0)
    model = workload.model()
    samples = next(only_stream(workload, "validation").batches(200, order=None))
    with torch.no_grad():
        losses = workload.losses(model(samples.inputs), samples.targets)
    assert float(losses["ink"]) > 300 * float(losses["left"] + losses["right"])
    ink = samples.targets["ink"]
    assert float(losses["ink"]) == pytest.approx(
        float(ink.var()), rel=0.5
    )  # the head's initial output is near the mean


@pytest.mark.parametrize(("option", "message"), [({"canvas": 7}, "at least 8"), ({"test": 0}, "at least 1")])
def test_digits_sizes_out_of_range_are_errors(option: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**option)  # type: ignore[arg-type]
