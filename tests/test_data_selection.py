"""Selection of images by name and seed alone, equal over classes, disjoint over splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_folders import CLASSES, write_both
from paretorch.workloads.formats.coco import find_coco
from paretorch.workloads.formats.imagenet import find_imagenet
from paretorch.workloads.loading.image_splits import ImageSplits, all_images, split_images
from paretorch.workloads.loading.selection import assigned, equal_shares, ordered

SIZES = {"train": 15, "validation": 6, "test": 6}


def names(chosen: ImageSplits) -> dict[str, set[str]]:
    return {part: {place.name for place in places} for part, places in chosen.parts.items()}


def test_order_of_names_does_not_depend_on_other_names() -> None:
    everyone = [f"image {number}" for number in range(200)]
    whole = ordered(everyone, seed=3)
    assert sorted(whole) == sorted(everyone)
    assert whole != everyone
    assert ordered(reversed(everyone), seed=3) == whole
    assert ordered(everyone[::3], seed=3) == [name for name in whole if name in set(everyone[::3])]
    assert ordered(everyone, seed=4) != whole


@pytest.mark.parametrize("wanted", range(19))
def test_equal_shares_are_as_equal_as_possible(wanted: int) -> None:
    available = {"a": 9, "b": 2, "c": 0, "d": 7}
    found = equal_shares(available, wanted)
    assert found is not None
    assert sum(found.values()) == wanted
    assert all(found[group] <= available[group] for group in available)
    open_ = [found[group] for group in available if found[group] < available[group]]
    assert not open_ or max(found.values()) - min(open_) <= 1


def test_equal_shares_of_too_few_images_are_errors() -> None:
    assert equal_shares({"a": 1, "b": 2}, 4) is None
    with pytest.raises(
        ValueError, match=r"too few images: here has 3 in 2 classes, the options require 2 for test [+] 2 for train"
    ):
        assigned({"a": 1, "b": 2}, {"test": 2, "train": 2}, "here")


def test_image_splits_are_disjoint_and_equal_over_classes(tmp_path: Path) -> None:
    source = find_imagenet(write_both(tmp_path))
    chosen = split_images(source, SIZES, seed=0, classes=3)
    assert chosen.groups == CLASSES
    assert chosen.validation_from == "val"
    assert {place.folder for place in chosen.parts["validation"]} == {"val"}
    assert {place.folder for part in ("train", "test") for place in chosen.parts[part]} == {"train"}
    found = names(chosen)
    assert {part: len(each) for part, each in found.items()} == SIZES
    assert not found["train"] & found["test"]
    for part, count in SIZES.items():
        groups = [place.group for place in chosen.parts[part]]
        assert [groups.count(name) for name in CLASSES] == [count // 3] * 3
    assert [item.label for item in chosen.items("test", masks=False)] == [0, 0, 1, 1, 2, 2]
    assert {item.label for item in chosen.items("test", masks=True)} == {-1}


def test_image_splits_have_the_same_test_set_for_more_training_images(tmp_path: Path) -> None:
    source = find_coco(write_both(tmp_path))
    few, many = (names(split_images(source, {**SIZES, "train": count}, seed=0)) for count in (10, 30))
    assert few["test"] == many["test"]
    assert few["train"] < many["train"]
    assert names(split_images(source, SIZES, seed=1))["test"] != few["test"]


def test_image_splits_without_val_hold_out_validation_images(tmp_path: Path) -> None:
    write_both(tmp_path, val=0)
    for source in (find_imagenet(tmp_path), find_coco(tmp_path)):
        chosen = split_images(source, SIZES, seed=0)
        assert chosen.validation_from == "train"
        found = names(chosen)
        assert len(found["train"] | found["validation"] | found["test"]) == sum(SIZES.values())
        assert len(all_images(source)) == 36


def test_image_split_errors_have_the_numbers(tmp_path: Path) -> None:
    source = find_imagenet(write_both(tmp_path))
    with pytest.raises(ValueError, match=r"too few classes: .*imagenet has 3 in train, the options require 4"):
        split_images(source, SIZES, seed=0, classes=4)
    with pytest.raises(
        ValueError, match=r"imagenet, train has 36 in 3 classes, the options require 6 for test [+] 31 for train"
    ):
        split_images(source, {**SIZES, "train": 31}, seed=0)
    with pytest.raises(ValueError, match="val has 18 in 3 classes, the options require 19 for validation"):
        split_images(source, {**SIZES, "validation": 19}, seed=0)
    (tmp_path / "imagenet" / "val" / CLASSES[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"no images in val of {CLASSES[1]}"):
        split_images(find_imagenet(tmp_path), SIZES, seed=0)


@pytest.mark.parametrize("place", ["ImageNet", "ilsvrc2012/Data/CLS-LOC", "."])
def test_imagenet_is_found_in_the_layout_of_the_archives(place: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    made = write_both(tmp_path / "raw") / "imagenet"
    target = tmp_path / "root" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if place == ".":
        target.mkdir()
        for folder in made.iterdir():
            folder.rename(target / folder.name)
    else:
        made.rename(target)
    assert sum(find_imagenet(tmp_path / "root").available("train").values()) == 36
    assert sum(find_imagenet(tmp_path, str(target)).available("train").values()) == 36


def test_coco_is_found_with_images_in_a_subfolder(tmp_path: Path) -> None:
    made = write_both(tmp_path) / "coco"
    (made / "images").mkdir()
    for name in ("train2017", "val2017"):
        (made / name).rename(made / "images" / name)
    assert find_coco(tmp_path).has_validation
    assert sum(find_coco(tmp_path).available("train").values()) == 36


def test_missing_data_errors_have_expected_and_found_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        find_imagenet(tmp_path / "nowhere")
    heap = tmp_path / "imagenet" / "train"
    heap.mkdir(parents=True)
    for number in range(3):
        (heap / f"{number}.JPEG").touch()
    (heap / "n01440764.tar").touch()
    with pytest.raises(FileNotFoundError) as caught:
        find_imagenet(tmp_path)
    message = str(caught.value)
    for part in (
        "imagenet/train/CLASS/*.JPEG",
        f"{heap}: 1 .tar files, 3 images",
        "image-net.org",
        "imagenet='FOLDER'",
    ):
        assert part in message
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
        find_coco(tmp_path)
    for part in ("annotations/instances_train2017.json", "1 folder (train2017)", "cocodataset.org"):
        assert part in str(caught.value)


def test_two_copies_of_a_data_set_are_an_error(tmp_path: Path) -> None:
    write_both(tmp_path)
    (tmp_path / "more").mkdir()
    (write_both(tmp_path / "more") / "imagenet").rename(tmp_path / "imagenet-100")
    with pytest.raises(ValueError, match=r"ImageNet was found 2 times: .*imagenet, .*imagenet-100. Select one"):
        find_imagenet(tmp_path)
    assert find_imagenet(tmp_path, str(tmp_path / "imagenet-100")).location.endswith("imagenet-100")


def test_coco_images_that_are_listed_and_missing_are_not_used(tmp_path: Path) -> None:
    made = write_both(tmp_path) / "coco"
    (made / "train2017" / "000000001003.jpg").unlink()
    source = find_coco(tmp_path)
    assert source.missing("train") == ["000000001003.jpg"]
    assert len(source.names("train", "")) == 35
