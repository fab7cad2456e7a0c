"""NYUv2 on tiny folders with the published layout: data, errors, reports, and the data commands."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import call
from dense_folders import SIZE, room, save, write_nyuv2
from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.workloads.nyuv2 import NYUv2

SMALL: dict[str, Any] = {"width": 0.125, "workers": 0}


def nyuv2_run(root: Path | str, epochs: int = 2, **options: Any) -> Run:
    values = {"root": str(root), **SMALL, "architecture": "segnet", **options}
    return Run("nyuv2", values, method="MGDA()", epochs=epochs, batch_size=2)


def test_nyuv2_arrays_are_read_as_stored(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=11, val=3)
    splits = NYUv2(root=str(tmp_path), validation=0.2, augmentation="none", **SMALL).data()
    (stream,) = splits.test
    (samples,) = stream.batches(3, order=None)
    for place in range(3):
        stored = {
            name: np.load(tmp_path / "nyuv2" / "val" / name / f"{place}.npy") for name in room(np.random.default_rng())
        }
        np.testing.assert_allclose(samples.inputs[place].permute(1, 2, 0), stored["image"], atol=1e-6)
        np.testing.assert_array_equal(samples.targets["segmentation"][place], stored["label"])
        np.testing.assert_allclose(samples.targets["depth"][place], stored["depth"][..., 0], atol=1e-6)
        np.testing.assert_allclose(samples.targets["normals"][place].permute(1, 2, 0), stored["normal"], atol=1e-6)
    assert samples.targets["segmentation"].dtype == torch.int64
    assert samples.inputs.dtype == samples.targets["depth"].dtype == torch.float32
    assert splits.facts["scenes"] == {"train": 9, "validation": 2, "test": 3}


def test_nyuv2_bytes_and_arrays_without_last_axis_give_equal_scenes(tmp_path: Path) -> None:
    scene = room(np.random.default_rng(3))
    scene["image"] = np.round(scene["image"] * 255) / 255
    for number in range(3):
        for part in ("train", "val"):
            for name, array in scene.items():
                save(tmp_path / "a" / part / name / f"{number}.npy", array)
            other = {"image": (scene["image"] * 255).round().astype(np.uint8), "label": scene["label"].astype(np.int8)}
            other |= {"depth": scene["depth"][..., 0].astype(np.float64), "normal": scene["normal"].astype(np.float32)}
            for name, array in other.items():
                save(tmp_path / "b" / part / name / f"{number}.npy", array)
    first, second = (next(NYUv2(root=str(tmp_path / name), **SMALL).data().test[0].batches(1, None)) for name in "ab")
    torch.testing.assert_close(first.inputs, second.inputs)
    for task, target in first.targets.items():
        torch.testing.assert_close(target, second.targets[task])


def test_nyuv2_splits_are_disjoint_and_depend_on_the_seed(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=20, val=3)

    def names(**options: Any) -> list[set[str]]:
        splits = NYUv2(root=str(tmp_path), validation=0.25, **SMALL, **options).data()
        return [set(split[0].sampler.reader.names) for split in (splits.train, splits.validation)]  # type: ignore[attr-defined]

    train_names, validation = names()
    assert len(validation) == 5
    assert train_names | validation == {str(number) for number in range(20)}
    assert not train_names & validation
    assert names()[1] == validation
    assert names(data_seed=1)[1] != validation


def test_nyuv2_test_scores_are_of_the_last_weights_or_of_ten_epochs(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=3, val=2)
    once = train(nyuv2_run(tmp_path, epochs=1), tmp_path / "once", progress=None)
    assert once.test.losses != once.validation.losses
    assert once.facts["test scores"] == "read once, last weights"
    last = train(nyuv2_run(tmp_path, epochs=12, report="last-10"), tmp_path / "last", progress=None)
    assert last.facts["scenes"] == {"train": 3, "test": 2}
    assert "mean of the last 10 epochs" in last.facts["test scores"]
    for task, values in last.test.metrics.items():
        for name, value in values.items():
            expected = [epoch.validation.metrics[task][name] for epoch in last.history[2:]]
            assert value == pytest.approx(np.mean(expected), nan_ok=True)
    with pytest.raises(ValueError, match="validation split is the test set, on which nothing may be selected"):
        train(Run(**{**vars(nyuv2_run(tmp_path, report="last-10")), "test": False}), tmp_path / "trial", progress=None)


def test_nyuv2_run_resumes_to_the_same_results(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=4, val=2)
    whole = train(nyuv2_run(tmp_path, epochs=2, architecture="mtan"), tmp_path / "whole", progress=None)

    def stop(done: int, of: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(nyuv2_run(tmp_path, epochs=2, architecture="mtan"), tmp_path / "stopped", progress=stop)
    again = train(nyuv2_run(tmp_path, epochs=2, architecture="mtan"), tmp_path / "stopped", progress=None)
    assert [epoch.losses for epoch in again.history] == [epoch.losses for epoch in whole.history]
    assert again.test == whole.test


def test_nyuv2_damaged_array_is_omitted_and_named(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=150, val=2, size=(32, 32))
    data = NYUv2(root=str(tmp_path), validation=0.01, **SMALL).data()
    name = data.train[0].sampler.reader.names[7]  # type: ignore[attr-defined]
    path = tmp_path / "nyuv2" / "train" / "depth" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match=rf"nyuv2, train: depth/{name}.npy is left out"):
        batches = list(data.train[0].batches(50, order=None))
    assert sum(batch.size for batch in batches) == len(data.train[0]) - 1


@pytest.mark.parametrize(
    ("folder", "array", "message"),
    [
        ("image", np.full((*SIZE, 3), 200.0), r"numbers in 0\.\.1, got 200 to 200"),
        ("image", np.full((*SIZE, 3), np.nan), r"numbers in 0\.\.1, got nan"),
        ("image", np.zeros((3, *SIZE)), "expected an array of 32 x 64 x 3, as the others are, got 3 x 32 x 64"),
        ("label", np.full(SIZE, 13), "expected classes 0 to 12, and below 0 for pixels without label, got 13"),
        ("label", np.full(SIZE, 1.5), "got 1.5"),
        ("depth", np.full(SIZE, np.inf), "got nan or infinity"),
        ("depth", np.zeros((16, 32)), "expected an array of 32 x 64, as the others are, got 16 x 32"),
        ("normal", np.full((*SIZE, 3), 9.0), "expected unit vectors, got lengths up to 15"),
    ],
)
def test_nyuv2_errors_describe_the_expected_array(tmp_path: Path, folder: str, array: Any, message: str) -> None:
    write_nyuv2(tmp_path, train=4, val=2)
    save(tmp_path / "nyuv2" / "val" / folder / "1.npy", array)
    with pytest.raises(ValueError, match=message), pytest.warns(UserWarning, match=rf"{folder}/1\.npy is left out"):
        list(NYUv2(root=str(tmp_path), **SMALL).data().test[0].batches(2, order=None))


def test_nyuv2_arrays_are_never_unpickled(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=4, val=2)
    for number, content in enumerate((pickle.dumps([1]), b"")):
        (tmp_path / "nyuv2" / "val" / "label" / f"{number}.npy").write_bytes(content)
    np.save(tmp_path / "nyuv2" / "train" / "label" / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, printed = call("data", "check", "nyuv2", "--root", str(tmp_path))
    assert code == 1
    assert printed.count("it contains Python objects, which are never unpickled") == 2
    assert "2 images cannot be read" in printed


def test_nyuv2_data_check_reports_found_and_missing_arrays(tmp_path: Path) -> None:
    code, printed = call("data", "check", "nyuv2", "--root", str(tmp_path))
    assert code == 1
    assert f"NYUv2 was not found in {tmp_path}" in printed
    assert "github.com/lorenmt/mtan" in printed
    write_nyuv2(tmp_path, train=5, val=3)
    code, printed = call("data", "check", "nyuv2", "--root", str(tmp_path))
    assert code == 0
    assert "train: 5 scenes of 32 x 64 pixels; published are 795 of 288 x 384" in printed
    assert "no problems" in printed
    (tmp_path / "nyuv2" / "train" / "normal" / "3.npy").unlink()
    code, printed = call("data", "check", "nyuv2", "--root", str(tmp_path))
    assert code == 1
    assert "there is no normal/3.npy" in printed
    code, printed = call("train", f"nyuv2(root='{tmp_path}')", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "there is no normal/3.npy" in printed
    code, printed = call("data", "list")
    assert "nyuv2/{train,val}/depth/0.npy" in printed


def test_nyuv2_folder_may_be_the_root(tmp_path: Path) -> None:
    place = write_nyuv2(tmp_path, train=3, val=1)
    assert NYUv2(root=str(place), **SMALL).data().facts["pixels"] == "32 x 64"
    with pytest.raises(FileNotFoundError, match="NYUv2 was not found"):
        NYUv2(root=str(tmp_path / "elsewhere")).require()


def test_nyuv2_defaults_are_the_protocol() -> None:
    protocol = Run("nyuv2", **NYUv2.protocol)  # type: ignore[arg-type]
    assert (protocol.optimizer, protocol.optimizer_options, protocol.batch_size) == ("Adam", {"lr": 1e-4}, 2)
    assert (protocol.epochs, protocol.schedule) == (200, "step(0.5, 100)")
    assert (NYUv2().architecture, NYUv2().augmentation, NYUv2().width) == ("mtan", "zoom", 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "unet"}, "mtan, segnet, dilated_resnet50, got 'unet'"),
        ({"augmentation": "crop"}, "zoom, rotate, flip, none, got 'crop'"),
        ({"augmentation": "rotate"}, "directions are not rotated"),
        ({"validation": 0.0}, "above 0 and below 1, got 0.0"),
        ({"report": "best"}, "once, last-10, got 'best'"),
        ({"workers": -1}, "workers is at least 0"),
    ],
)
def test_nyuv2_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NYUv2(**options)


def test_nyuv2_images_of_an_unsuitable_size_are_errors(tmp_path: Path) -> None:
    write_nyuv2(tmp_path, train=3, val=1, size=(20, 36))
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 20 x 36"):
        NYUv2(root=str(tmp_path)).data()
    with pytest.raises(ValueError, match="multiples of 8 pixels, got 20 x 36"):
        NYUv2(root=str(tmp_path), architecture="dilated_resnet50").data()
    with pytest.raises(ValueError, match="leaves none for training"):
        NYUv2(root=str(tmp_path), validation=0.9).data()
