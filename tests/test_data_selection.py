"""Which images a run uses: by name and seed alone, equal over classes, disjoint over splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_folders import CLASSES, write_both
from paretorch.workloads.formats.layout import find_coco, find_imagenet
from paretorch.workloads.reading.selection import dealt, ranked, shares
from paretorch.workloads.reading.splitting import Chosen, everything, split

SIZES = {"train": 15, "validation": 6, "test": 6}


def names(chosen: Chosen) -> dict[str, set[str]]:
    return {part: {place.name for place in places} for part, places in chosen.parts.items()}


def test_a_ranking_does_not_depend_on_what_else_there_is() -> None:
    everyone = [f"image {number}" for number in range(200)]
    whole = ranked(everyone, seed=3)
    assert sorted(whole) == sorted(everyone)
    assert whole != everyone
    assert ranked(reversed(everyone), seed=3) == whole
    assert ranked(everyone[::3], seed=3) == [name for name in whole if name in set(everyone[::3])]
    assert ranked(everyone, seed=4) != whole


@pytest.mark.parametrize("wanted", range(19))
def test_shares_are_as_equal_as_can_be(wanted: int) -> None:
    available = {"a": 9, "b": 2, "c": 0, "d": 7}
    found = shares(available, wanted)
    assert found is not None
    assert sum(found.values()) == wanted
    assert all(found[group] <= available[group] for group in available)
    open_ = [found[group] for group in available if found[group] < available[group]]
    assert not open_ or max(found.values()) - min(open_) <= 1


def test_too_few_have_no_shares() -> None:
    assert shares({"a": 1, "b": 2}, 4) is None
    with pytest.raises(
        ValueError, match=r"fewer images than asked for: here has 3 in 2 classes, asked are 2 for test [+] 2 for train"
    ):
        dealt({"a": 1, "b": 2}, {"test": 2, "train": 2}, "here")


def test_splits_are_disjoint_and_equal_over_classes(tmp_path: Path) -> None:
    source = find_imagenet(write_both(tmp_path))
    chosen = split(source, SIZES, seed=0, classes=3)
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


def test_the_test_set_stays_when_more_is_trained_on(tmp_path: Path) -> None:
    source = find_coco(write_both(tmp_path))
    few, many = (names(split(source, {**SIZES, "train": count}, seed=0)) for count in (10, 30))
    assert few["test"] == many["test"]
    assert few["train"] < many["train"]
    assert names(split(source, SIZES, seed=1))["test"] != few["test"]


def test_without_val_images_are_held_out_and_said_so(tmp_path: Path) -> None:
    write_both(tmp_path, val=0)
    for source in (find_imagenet(tmp_path), find_coco(tmp_path)):
        chosen = split(source, SIZES, seed=0)
        assert chosen.validation_from == "train"
        found = names(chosen)
        assert len(found["train"] | found["validation"] | found["test"]) == sum(SIZES.values())
        assert len(everything(source)) == 36


def test_too_few_classes_or_images_are_counted(tmp_path: Path) -> None:
    source = find_imagenet(write_both(tmp_path))
    with pytest.raises(ValueError, match=r"fewer classes than asked for: .*imagenet has 3 in train, asked are 4"):
        split(source, SIZES, seed=0, classes=4)
    with pytest.raises(ValueError, match=r"imagenet, train has 36 in 3 classes, asked are 6 for test [+] 31 for train"):
        split(source, {**SIZES, "train": 31}, seed=0)
    with pytest.raises(ValueError, match="val has 18 in 3 classes, asked are 19 for validation"):
        split(source, {**SIZES, "validation": 19}, seed=0)
    (tmp_path / "imagenet" / "val" / CLASSES[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"no images in val of {CLASSES[1]}"):
        split(find_imagenet(tmp_path), SIZES, seed=0)


@pytest.mark.parametrize("place", ["ImageNet", "ilsvrc2012/Data/CLS-LOC", "."])
def test_imagenet_is_found_as_archives_unpack_it(place: str, tmp_path: Path) -> None:
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


def test_coco_is_found_with_images_apart(tmp_path: Path) -> None:
    made = write_both(tmp_path) / "coco"
    (made / "images").mkdir()
    for name in ("train2017", "val2017"):
        (made / name).rename(made / "images" / name)
    assert find_coco(tmp_path).has_validation
    assert sum(find_coco(tmp_path).available("train").values()) == 36


def test_what_is_missing_or_misplaced_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        find_imagenet(tmp_path / "nowhere")
    heap = tmp_path / "imagenet" / "train"
    heap.mkdir(parents=True)
    for number in range(3):
        (heap / f"{number}.JPEG").touch()
    (heap / "n01440764.tar").touch()
    with pytest.raises(FileNotFoundError) as caught:
        find_imagenet(tmp_path)
    said = str(caught.value)
    for part in (
        "imagenet/train/CLASS/*.JPEG",
        f"{heap}: 1 .tar files, 3 images",
        "image-net.org",
        "imagenet='FOLDER'",
    ):
        assert part in said
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
        find_coco(tmp_path)
    for part in ("annotations/instances_train2017.json", "1 folder (train2017)", "cocodataset.org"):
        assert part in str(caught.value)


def test_two_copies_must_be_told_apart(tmp_path: Path) -> None:
    write_both(tmp_path)
    (tmp_path / "more").mkdir()
    (write_both(tmp_path / "more") / "imagenet").rename(tmp_path / "imagenet-100")
    with pytest.raises(ValueError, match=r"ImageNet is there 2 times: .*imagenet, .*imagenet-100. Say which"):
        find_imagenet(tmp_path)
    assert find_imagenet(tmp_path, str(tmp_path / "imagenet-100")).place.endswith("imagenet-100")


def test_listed_images_that_are_not_there_are_not_used(tmp_path: Path) -> None:
    made = write_both(tmp_path) / "coco"
    (made / "train2017" / "000000001003.jpg").unlink()
    source = find_coco(tmp_path)
    assert source.missing("train") == ["000000001003.jpg"]
    assert len(source.names("train", "")) == 35
