"""Office-31 and Office-Home: layouts, splits, the model and errors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import call
from domain_folders import CLASSES, shared_office, write_domain, write_office_31, write_office_home
from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.workloads.formats.domains import DOMAINS, PUBLISHED, find_domains
from paretorch.workloads.loading.read_stream import ReadStream
from paretorch.workloads.office import Office
from paretorch.workloads.streams import SPLITS
from training_runs import check_resumed_run

SMALL: dict[str, Any] = {"size": 32, "width": 0.125, "stride": 8, "workers": 0}


def test_office_each_domain_has_its_own_images_and_classes_are_in_every_split() -> None:
    splits = Office(root=shared_office(), **SMALL).data()
    for name, count in (("train", 24), ("validation", 8), ("test", 8)):
        streams = getattr(splits, name)
        assert [stream.tasks for stream in streams] == [("amazon",), ("dslr",), ("webcam",)]
        assert [len(stream) for stream in streams] == [3 * count, 3 * count // 2, 3 * count // 2]
        for stream in streams:
            (domain,) = stream.tasks
            (batch,) = stream.batches(len(stream), None)
            assert batch.inputs.shape == (len(stream), 3, 32, 32)
            assert batch.inputs.dtype == torch.uint8
            colour = batch.inputs.float().mean(dim=(2, 3)).argmax(dim=1)
            assert torch.equal(colour, batch.targets[domain])
            assert batch.targets[domain].bincount().tolist() == [len(stream) // 3] * 3


def test_office_splits_share_no_image_and_depend_on_names_and_seed(tmp_path: Path) -> None:
    folders = find_domains(Path(shared_office()), DOMAINS["office_31"])
    parts = folders.splits("amazon", seed=0)
    names = [image.name for split in SPLITS for image in parts[split]]
    assert len(set(names)) == len(names) == 120
    assert folders.splits("amazon", seed=0) == parts
    assert folders.splits("amazon", seed=1) != parts
    copied = tmp_path / "copy"
    shutil.copytree(folders.root, copied)
    assert find_domains(tmp_path, DOMAINS["office_31"], str(copied)).splits("amazon", seed=0) == parts


def test_office_home_is_found_with_a_space_in_its_folder(tmp_path: Path) -> None:
    write_office_home(tmp_path)
    write_office_31(tmp_path)  # both below one root: the domains decide
    workload = Office("office_home", root=str(tmp_path), **SMALL)
    assert workload.data().facts["Real_World, images"] == {"train": 6, "validation": 2, "test": 2}
    assert workload.data().facts["classes"] == 2
    assert workload.model()(torch.zeros(2, 3, 32, 32))["Real_World"].shape == (2, 2)
    other = Office(domains="Art, Product", root=str(tmp_path), **SMALL)
    assert [stream.tasks for stream in other.data().train] == [("Art",), ("Product",)]


def test_office_folders_of_the_archives_are_found(tmp_path: Path) -> None:
    place = write_office_31(tmp_path)
    (tmp_path / "office_31").mkdir()
    place.rename(tmp_path / "office_31" / "Original_images")
    Office(root=str(tmp_path)).require()
    Office(office=str(tmp_path / "office_31" / "Original_images")).require()


def test_office_model_has_the_published_layers() -> None:
    model = Office(root=shared_office()).model()
    hidden = next(layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    assert tuple(hidden.weight.shape) == (512, 512)
    assert hidden.weight.std().item() == pytest.approx(0.005, rel=0.05)
    assert bool((hidden.bias == 0.1).all())
    assert sum(PUBLISHED[domain] for domain in DOMAINS["office_31"]) == 4_110


@pytest.mark.long
def test_office_published_settings_train_for_an_epoch(tmp_path: Path) -> None:
    write_office_31(tmp_path, (5, 5, 5))
    protocol: dict[str, Any] = {**Office.protocol, "epochs": 1}
    run = Run("office", {"root": str(tmp_path), "workers": 0}, surface="parameters", **protocol)
    result = train(run, tmp_path / "run", progress=None)
    assert set(result.validation.losses) == {"amazon", "dslr", "webcam"}


@pytest.mark.long
def test_office_run_resumes_exactly(tmp_path: Path) -> None:
    run = Run(
        "office", {"root": shared_office(), **SMALL}, method="MGDA()", surface="parameters", epochs=3, batch_size=12
    )
    check_resumed_run(run, tmp_path, 2)


def test_office_missing_error_has_layout_and_origin(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Office(root=str(tmp_path)).require()
    for words in ("was not found", "amazon/images/back_pack", "Real World", "hemanthdv.org"):
        assert words in str(caught.value)


def test_office_errors_name_the_folder(tmp_path: Path) -> None:
    place = write_office_31(tmp_path)
    shutil.copytree(place, tmp_path / "office_copy")
    with pytest.raises(ValueError, match=r"was found 2 times: .* Select one: office="):
        Office(root=str(tmp_path)).data()
    shutil.rmtree(tmp_path / "office_copy")
    write_domain(place / "dslr" / "images", ("pen",), 4, 9)
    with pytest.raises(ValueError, match=r"amazon/images has no folder of pen, which another domain has"):
        Office(root=str(tmp_path)).data()
    shutil.rmtree(place / "dslr" / "images" / "pen")
    for path in (place / "webcam" / "images" / "bike").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"webcam/images has fewer than three images of bike"):
        Office(root=str(tmp_path)).data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "office_32"}, "dataset is one of office_31, office_home, got 'office_32'"),
        ({"domains": "amazon,amazon"}, "domains are distinct, got amazon, amazon"),
        ({"size": 16}, "size is at least 32 pixels"),
        ({"workers": -1}, "workers is at least 0"),
    ],
)
def test_office_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Office(**options)


def test_office_data_check_counts_and_names_unreadable_images(tmp_path: Path) -> None:
    place = write_office_31(tmp_path)
    code, text = call("data", "check", "office", "--root", str(tmp_path))
    assert code == 0
    assert "in " + str(place) + ", 3 classes" in text
    assert "amazon: 30 images; published are 2,817" in text
    bad = place / "dslr" / "images" / CLASSES[1] / "frame_0002.jpg"
    bad.write_bytes(b"\xff\xd8 no image")
    code, text = call("data", "check", "office", "--root", str(tmp_path))
    assert code == 1
    assert "dslr/bike/frame_0002.jpg" in text
    code, text = call("data", "check", "office", "--root", str(tmp_path), "--images", "2")
    assert "2 images read" in text
    (stream, *_) = Office(root=str(tmp_path), **SMALL).data().train
    assert isinstance(stream, ReadStream)
