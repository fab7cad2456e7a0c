"""CelebA as forty binary tasks, from the published folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from face_folders import COUNTS, shared_celeba, write_celeba
from paretorch.metrics import ErrorRate
from paretorch.training.model_size import parameter_counts
from paretorch.workloads.celeba import CelebA
from paretorch.workloads.formats.celeba import ATTRIBUTES, PUBLISHED, read_faces


def test_celeba_splits_are_the_published_ones() -> None:
    workload = CelebA(root=shared_celeba(), workers=0)
    splits = workload.data()
    assert splits.facts == {"images, train": 80, "images, validation": 20, "images, test": 20}
    for (stream,), count in ((splits.train, 80), (splits.validation, 20), (splits.test, 20)):
        batches = list(stream.batches(16, None))
        assert sum(batch.size for batch in batches) == count
        for batch in batches:
            assert batch.inputs.shape[1:] == (3, 64, 64)
            assert batch.inputs.dtype == torch.uint8
            assert set(batch.targets) == set(ATTRIBUTES)
            bright = batch.inputs[:, :, :30].float().mean(dim=(1, 2, 3)) > 90
            assert torch.equal(bright, batch.targets["Smiling"] == 1)
            assert batch.inputs[:, :, 34:].max() < 90


def test_celeba_lists_are_read_as_published(tmp_path: Path) -> None:
    place = write_celeba(tmp_path)
    faces = read_faces(place)
    assert tuple(len(each.names) for each in faces.values()) == COUNTS
    assert faces["validation"].names[0] == "000013.jpg"
    line = (place / "Anno/list_attr_celeba.txt").read_text().splitlines()[2 + 12].split()
    assert faces["validation"].attributes[0].tolist() == [value == "1" for value in line[1:]]


def test_celeba_fewer_faces_are_the_first_of_the_list() -> None:
    (whole,) = CelebA(root=shared_celeba(), workers=0).data().train
    (some,) = CelebA(root=shared_celeba(), workers=0, train=10).data().train
    assert torch.equal(next(some.batches(10, None)).inputs, next(whole.batches(10, None)).inputs)
    with pytest.raises(ValueError, match="80 faces for train, the options require 81"):
        CelebA(root=shared_celeba(), train=81).data()


def test_celeba_model_has_a_linear_head_for_each_attribute() -> None:
    counts = parameter_counts(CelebA().model())
    assert counts["encoder"] == 11_176_512, "torchvision's ResNet-18 without its classifier"
    assert {counts[f"head {task}"] for task in ATTRIBUTES} == {513}
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert sum(PUBLISHED.values()) == 202_599


def test_error_rate_is_one_minus_accuracy() -> None:
    metric = ErrorRate()
    assert metric.compute() != metric.compute()
    metric.update(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 0.0]))
    metric.update(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([0.0, 1.0, 1.0]))
    assert metric.compute() == pytest.approx(40.0)
    assert not metric.higher_is_better


def test_celeba_missing_error_has_layout_and_origin(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        CelebA(root=str(tmp_path)).require()
    for words in ("CelebA was not found", "img_align_celeba", "list_eval_partition.txt", "mmlab.ie.cuhk.edu.hk"):
        assert words in str(caught.value)
    write_celeba(tmp_path, folder="CelebA-aligned")
    CelebA(root=str(tmp_path)).require()
    CelebA(celeba=str(tmp_path / "CelebA-aligned")).require()


DAMAGES: list[tuple[str, Callable[[str], str], str]] = [
    (
        "Anno/list_attr_celeba.txt",
        lambda text: text.replace("21\n", "22\n", 1),
        "declares 22 faces and lists 21",
    ),
    (
        "Anno/list_attr_celeba.txt",
        lambda text: text.replace("Bald", "Bold"),
        "line 2: expected the names of CelebA's forty",
    ),
    (
        "Anno/list_attr_celeba.txt",
        lambda text: text.replace("000002.jpg ", "000002.jpg 0 "),
        "line 4: expected a file name",
    ),
    ("Anno/list_attr_celeba.txt", lambda text: "", "line 1: expected the number of faces, got 'nothing'"),
    (
        "Eval/list_eval_partition.txt",
        lambda text: text.replace("000002.jpg 0", "000002.jpg 3"),
        "line 2: expected a file",
    ),
    (
        "Eval/list_eval_partition.txt",
        lambda text: text.replace("000003", "000999"),
        "such as 000003.jpg in one of them only",
    ),
]


@pytest.mark.parametrize(
    ("file", "damage", "words"), DAMAGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_celeba_errors_name_the_line_of_damage(
    file: str, damage: Callable[[str], str], words: str, tmp_path: Path
) -> None:
    path = write_celeba(tmp_path) / file
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=words):
        CelebA(root=str(tmp_path)).data()
    (report,) = CelebA(root=str(tmp_path)).check_data()
    assert words in report.problems[0]


def test_celeba_data_check_counts_and_names_unreadable_images(tmp_path: Path) -> None:
    place = write_celeba(tmp_path)
    (place / "Img/img_align_celeba/000014.jpg").unlink()
    (place / "Img/img_align_celeba/000015.jpg").write_bytes(b"\xff\xd8 no image")
    calls: list[tuple[str, int, int]] = []
    (report,) = CelebA(root=str(tmp_path)).check_data(progress=lambda *call: calls.append(call))
    assert "train: 12 faces; published are 162,770" in report.found
    assert "5 images read, 2 of them unreadable" in report.found
    (problem,) = report.problems
    assert "000014.jpg: it is missing" in problem
    assert "000015.jpg" in problem
    assert calls[-1] == ("celeba/test", 4, 4)
    (some,) = CelebA(root=str(tmp_path)).check_data(images=2)
    assert "2 images read" in " ".join(some.found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": 0}, "train is at least 1 face"),
        ({"size": 8}, "size is at least 16"),
        ({"workers": -1}, "workers is at"),
    ],
)
def test_celeba_options_out_of_range_are_errors(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CelebA(**options)  # type: ignore[arg-type]


LISTS = ("Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt")


@pytest.mark.parametrize("name", LISTS)
def test_celeba_lists_in_another_encoding_are_errors(tmp_path: Path, name: str) -> None:
    place = write_celeba(tmp_path)
    whole = read_faces(place)
    path = place / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert {split: faces.names for split, faces in read_faces(place).items()} == {
        split: faces.names for split, faces in whole.items()
    }
    path.write_bytes(path.read_bytes().replace(b"000003.jpg", b"00\xe9003.jpg"))
    line = {LISTS[0]: 5, LISTS[1]: 3}[name]
    message = f"{path.name}, line {line}: expected text in UTF-8, got the byte 0xe9"
    with pytest.raises(ValueError, match=message):
        CelebA(root=str(tmp_path)).data()
    (report,) = CelebA(root=str(tmp_path)).check_data()
    assert [message in problem for problem in report.problems] == [True]


def test_celeba_errors_name_the_line_of_a_repeated_face(tmp_path: Path) -> None:
    path = write_celeba(tmp_path) / LISTS[1]
    path.write_text(path.read_text() + "000001.jpg 2\n")
    with pytest.raises(ValueError, match=r"partition.txt, line 22: expected each face once, got 000001.jpg again"):
        CelebA(root=str(tmp_path)).data()
