"""The workload on ImageNet and COCO: its record, its runs, and the data commands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import call
from image_folders import SMALL, shared_root, truncate, write_both
from paretorch.training.loop import train
from paretorch.training.monitoring.loading import LoadingTimer, SlowLoadingWarning
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from paretorch.workloads import Samples, TensorStream
from paretorch.workloads.imagenet_coco import ImagenetCoco
from paretorch.workloads.streams import LoadingStatistics

NARROW = {"encoder": "resnet18", "width": 0.125}


def coco_run(root: Path | str, **options: Any) -> Run:
    options = {"root": str(root), **SMALL, "train": 24, **NARROW, **options}
    return Run("imagenet_coco", options, method="UPGrad()", surface="parameters", epochs=2, batch_size=8)


def without_durations(result: Result) -> dict[str, Any]:
    """The result without its durations."""
    values = result.to_json()
    for name in ("seconds_per_epoch", "peak_memory", "checksum"):
        values.pop(name, None)
    for epoch in values["history"]:
        assert 0 <= epoch["seconds"]["loading"] <= epoch["seconds"]["training"]
        epoch.pop("seconds")
    for data_loader in values["facts"]["loader"].values():
        assert data_loader.pop("samples per second") > 0
        assert data_loader.pop("seconds waited") > 0
    values["run"].pop("options")
    return values


def test_imagenet_coco_defaults_are_the_protocol() -> None:
    made = ImagenetCoco()
    assert (made.classes, made.train, made.validation + made.test, made.size) == (100, 50_000, 10_000, 256)
    model = made.model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_116_329


def test_imagenet_coco_run_records_the_source_and_loading_statistics(tmp_path: Path) -> None:
    result = train(coco_run(shared_root()), tmp_path, progress=None)
    facts = result.facts
    assert facts["classification, validation images"] == "of val"
    assert facts["segmentation, images"] == {"train": 24, "validation": 9, "test": 6}
    assert facts["passes per epoch of each stream"] == [1, 1]
    assert set(facts["loader"]) == {
        f"{task}, {split}" for task in result.tasks for split in ("train", "validation", "test")
    }
    assert facts["loader"]["segmentation, train"]["reads"] == "image files"
    assert "left out, unreadable" not in facts
    assert Result.load(tmp_path).facts == facts


def test_imagenet_coco_run_resumes_to_the_same_results_with_any_workers_and_from_a_pack(tmp_path: Path) -> None:
    root = write_both(tmp_path / "data", train=20)
    whole = without_durations(train(coco_run(root), tmp_path / "whole", progress=None))

    def stop(done: int, of: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(coco_run(root), tmp_path / "stopped", progress=stop)
    assert without_durations(train(coco_run(root), tmp_path / "stopped", progress=None)) == whole
    ImagenetCoco(root=str(root), **{**SMALL, "train": 24}).packed(root / "packed")
    packed = without_durations(train(coco_run(root, source="pack"), tmp_path / "packed", progress=None))
    assert packed["history"] == whole["history"]
    assert packed["test"] == whole["test"]
    helped = without_durations(train(coco_run(root, source="files", workers=1), tmp_path / "workers", progress=None))
    assert helped["history"] == whole["history"]


def test_imagenet_coco_record_has_unreadable_images(tmp_path: Path) -> None:
    root = write_both(tmp_path / "data", train=60)
    options = {"train": 150, "test": 6}
    data = ImagenetCoco(root=str(root), **{**SMALL, **options}).data()
    broken = data.train[1].sampler.reader.items[4].name  # type: ignore[attr-defined]
    truncate(root / "coco" / broken)
    with pytest.warns(UserWarning, match=f"{broken} is left out"):
        result = train(coco_run(root, **options), tmp_path / "run", progress=None)
    ((stream, left_out),) = result.facts["left out, unreadable"].items()
    assert stream == "segmentation, train"
    assert list(left_out) == [broken]


def test_imagenet_coco_loss_ignores_unlabelled_pixels() -> None:
    made = ImagenetCoco(**SMALL)
    scores = torch.randn(2, 21, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0] = -1
    losses = made.losses({"segmentation": scores}, {"segmentation": target})
    expected = -scores[1].log_softmax(dim=0)[0].mean()
    assert float(losses["segmentation"]) == pytest.approx(float(expected), rel=1e-6)
    assert int(made.labelled("segmentation", target, 2)) == 16
    assert made.losses({"segmentation": scores}, {"segmentation": target - 1 - target}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes is at least 2"),
        ({"train": 0}, "train is at least 1"),
        ({"size": 30}, "size is at least 32"),
        ({"size": 36}, "multiple of 8"),
        ({"source": "disk"}, "auto, files, pack"),
        ({"augmentation": "flip"}, "crop, zoom, none"),
        ({"workers": -1}, "at least 0"),
    ],
)
def test_imagenet_coco_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImagenetCoco(**options)


def test_data_check_reports_images(tmp_path: Path) -> None:
    write_both(tmp_path)
    code, printed = call("data", "check", str(tmp_path))
    assert code == 0
    for part in (
        "train: 36 images in 3 classes, 12 in each",
        "val2017: 18 images listed, 18 of them present",
        "0 of them unreadable",
    ):
        assert part in printed


def test_data_check_reports_problems(tmp_path: Path) -> None:
    write_both(tmp_path, val=0)
    truncate(tmp_path / "imagenet" / "train" / "n01443537" / "n01443537_3.JPEG")
    (tmp_path / "coco" / "train2017" / "000000001004.jpg").unlink()
    (tmp_path / "imagenet" / "train" / "n09999999").mkdir()
    code, printed = call("data", "check", "--root", str(tmp_path), "--workers", "0")
    assert code == 1
    for part in (
        "no images in n09999999",
        "n01443537/n01443537_3.JPEG: image file is truncated",
        "1 images cannot be read, more than 1 %",
        "1 images are listed and missing: 000000001004.jpg",
        "no val in folders of classes",
        "validation images are held out of train2017",
    ):
        assert part in printed
    code, printed = call("data", "check", str(tmp_path / "coco"))
    assert code == 1
    assert "ImageNet was not found" in printed
    assert "train2017: 36 images listed" in printed


def test_data_pack_packs_all_or_selected_images(tmp_path: Path) -> None:
    write_both(tmp_path)
    code, printed = call("data", "pack", str(tmp_path), "--size", "32", "--workers", "0")
    assert code == 0
    assert "classification-36: 54 images, 54 of them new" in printed
    assert "segmentation: 54 of 54 images" in printed
    wanted = "imagenet_coco(classes=3, train=24, validation=9, test=6, size=32)"
    code, printed = call(
        "data", "pack", wanted, "--root", str(tmp_path), "--out", str(tmp_path / "some"), "--workers", "0"
    )
    assert code == 0
    assert f"{tmp_path}/some/segmentation-36: 39 images, 39 of them new" in printed
    code, printed = call("data", "check", str(tmp_path), "--images", "5", "--workers", "0")
    assert code == 0
    assert "5 images read" in printed
    assert "54 images of 36 x 36 pixels for segmentation" in printed
    with open(tmp_path / "packed" / "segmentation-36" / "rows.u8", "r+b") as rows:
        rows.write(b"damage")
    code, printed = call("data", "check", str(tmp_path), "--images", "5", "--workers", "0")
    assert code == 1
    assert "1 rows differ from what was written" in printed


@pytest.mark.parametrize("verb", ["check", "pack"])
def test_data_command_errors_for_a_missing_folder(verb: str, tmp_path: Path) -> None:
    code, printed = call("data", verb, str(tmp_path / "none"))
    assert code == 2
    assert "is no folder, and no workload that this command supports" in printed


def test_data_list_prints_the_expected_layout() -> None:
    code, printed = call("data", "list")
    assert code == 0
    for part in ("imagenet/train/CLASS/*.JPEG", "instances_train2017.json", "cocodataset.org", "image-net.org"):
        assert part in printed


class Slow(TensorStream):
    """A stream with slow loading."""

    def loading(self) -> LoadingStatistics:
        return LoadingStatistics("depth, train", "image files", 1, samples=100, work=50.0, waited=40.0, unreadable={})


def ticking(times: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Iterator[float] = iter(times)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))


def test_loading_waits_are_counted_and_warned_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Slow(torch.zeros(4), {"depth": torch.zeros(4)})
    batches = [(Samples(torch.zeros(4), {}, 4),)] * 3
    # times before, after and between batches: three times 4 s of waiting and 1 s of training
    ticking([0, 4, 5, 5, 9, 10, 10, 14, 15, 15, 15], monkeypatch)
    waiting = LoadingTimer((stream,))
    with pytest.warns(SlowLoadingWarning) as caught:
        assert len(list(waiting.over(batches))) == 3
    assert waiting.seconds == 12
    assert len(caught) == 1
    message = str(caught[0].message)
    for part in (
        "waits for its data 80 %",
        "depth, train",
        "decoding image files",
        "1 worker reaches 2 samples/s",
        "`paretorch data pack`",
    ):
        assert part in message
    assert "training alone could reach 4 of" in message


def test_loading_without_waits_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [(Samples(torch.zeros(4), {}, 4),)] * 2
    for times in ([0, 1, 5, 5, 6, 10, 10, 10], [0, 8, 50, 50, 58, 100, 100, 100]):
        ticking([float(number) for number in times], monkeypatch)
        waiting = LoadingTimer(())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(waiting.over(batches))
        assert waiting.advice is None
