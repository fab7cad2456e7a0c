"""Packs: the same bytes as the files, resumable after kill -9, an error if damaged or out of date."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from image_folders import SMALL, save_jpeg, truncate, write_both
from pack_folders import change_manifest
from paretorch.storage.locks import MovedFolderError
from paretorch.workloads.imagenet_coco import TASKS, ImagenetCoco
from paretorch.workloads.loading import unreadable
from paretorch.workloads.packs import writing as pack_writing
from paretorch.workloads.packs.pack import DIGEST, UNSEALED, Pack
from tensors import equal_tensors

SIZES = {**SMALL, "train": 24, "validation": 9, "test": 6}
TOTAL = 39


def coco_workload(root: Path, **options: Any) -> ImagenetCoco:
    return ImagenetCoco(**{"root": str(root), **SIZES, **options})


def all_images(made: ImagenetCoco) -> list[Tensor]:
    splits = made.data()
    streams = [*splits.train, *splits.validation, *splits.test]
    batches = [batch for stream in streams for order in (None, 4) for batch in stream.batches(7, order)]
    return [tensor for batch in batches for tensor in (batch.inputs, *batch.targets.values())]


def folder_content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_both(tmp_path)


@pytest.mark.parametrize("augmentation", ["crop", "zoom"])
def test_pack_batches_equal_those_of_the_files(root: Path, augmentation: str) -> None:
    made = coco_workload(root, augmentation=augmentation)
    files = all_images(made)
    calls: list[tuple[str, int, int]] = []
    packs = made.packed(root / "packed", progress=lambda *numbers: calls.append(numbers))
    assert [(pack.images, pack.added) for pack in packs] == [(TOTAL, TOTAL)] * 2
    assert calls[0] == ("classification", 0, TOTAL)
    assert calls[-1] == ("segmentation", TOTAL, TOTAL)
    assert made.data().facts["segmentation, read from"] == "pack"
    assert equal_tensors(all_images(made), files)
    for name in ("imagenet", "coco"):
        (root / name).rename(root / f"_{name}")
    assert equal_tensors(all_images(made), files)
    assert equal_tensors(all_images(coco_workload(root, augmentation=augmentation, source="pack")), files)


def test_pack_selections_of_fewer_images_equal_those_of_the_files(root: Path) -> None:
    coco_workload(root).packed(root / "packed")
    for options in (
        {"train": 12},
        {"test": 3, "validation": 3},
        {"classes": 2, "train": 16, "test": 4, "validation": 6},
    ):
        assert equal_tensors(
            all_images(coco_workload(root, **options, source="pack")),
            all_images(coco_workload(root, **options, source="files")),
        )


def test_packing_again_adds_missing_images(root: Path) -> None:
    coco_workload(root, train=12).packed(root / "packed")
    with pytest.warns(UserWarning, match="image files are read instead of the pack: .*adds the missing images"):
        assert coco_workload(root).data().facts["classification, read from"] == "image files"
    with pytest.raises(ValueError, match="`paretorch data pack` with the same options"):
        coco_workload(root, source="pack").data()
    packs = coco_workload(root).packed(root / "packed")
    assert [(pack.images, pack.added) for pack in packs] == [(TOTAL, 12)] * 2
    assert [pack.added for pack in coco_workload(root).packed(root / "packed")] == [0, 0]
    assert equal_tensors(
        all_images(coco_workload(root, source="pack")), all_images(coco_workload(root, source="files"))
    )


def test_pack_of_all_images_is_valid_for_every_seed_and_a_part_for_its_own(root: Path) -> None:
    coco_workload(root).packed(root / "packed")
    with pytest.raises(ValueError, match="selected with data_seed=0"):
        coco_workload(root, data_seed=1, source="pack").data()
    with pytest.raises(ValueError, match="its seed is 0, expected 1"):
        coco_workload(root, data_seed=1).packed(root / "packed")
    assert [pack.images for pack in coco_workload(root).packed(root / "whole", whole=True)] == [54, 54]
    other = coco_workload(root, data_seed=1, pack=str(root / "whole"))
    assert equal_tensors(all_images(other), all_images(coco_workload(root, data_seed=1, source="files")))


def test_pack_unreadable_images_equal_those_of_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = coco_workload(root)
    broken = made.data().train[0].sampler.reader.items[3].name  # type: ignore[attr-defined]
    before = (root / "imagenet" / broken).read_bytes()
    truncate(root / "imagenet" / broken)
    with monkeypatch.context() as tolerant:
        tolerant.setattr(unreadable, "MAX_UNREADABLE", 0.1)
        pack, _ = made.packed(root / "packed")
    assert list(pack.unreadable) == [broken]
    assert "truncated" in pack.unreadable[broken]
    with pytest.warns(UserWarning, match=f"{broken} is left out"), pytest.raises(ValueError, match="1 of 24 images"):
        all_images(made)
    (root / "imagenet" / broken).write_bytes(before)
    pack, _ = made.packed(root / "packed")
    assert (pack.added, dict(pack.unreadable)) == (1, {})
    assert equal_tensors(all_images(made), all_images(coco_workload(root, source="files")))


def test_packing_stops_above_one_percent_of_unreadable_images(root: Path) -> None:
    save = root / "coco" / "train2017"
    truncate(next(iter(sorted(save.iterdir()))))
    with pytest.raises(ValueError, match=r"1 of 54 images cannot be read, more than 1 %") as caught:
        coco_workload(root).packed(root / "packed", whole=True)
    assert "train2017/000000001000.jpg" in str(caught.value)


PACKING = """
import sys
from pathlib import Path
from paretorch.workloads.packs import writing as pack_writing
from paretorch.workloads.imagenet_coco import ImagenetCoco
pack_writing.CHUNK = 2
root = Path(sys.argv[1])
size, workers = map(int, sys.argv[2:])
made = ImagenetCoco(root=str(root), classes=3, train=24, validation=9, test=6, size=size, workers=workers)
made.packed(root / "packed", progress=lambda *numbers: print(*numbers, flush=True))
"""


def packing(root: Path, size: int = 32, workers: int = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PACKING, str(root), str(size), str(workers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", [3, 17, 31])
@pytest.mark.sampled(3)
def test_packing_continues_to_the_same_bytes_after_a_kill(
    root: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_writing, "CHUNK", 2)
    coco_workload(root).packed(root / "whole")
    process = packing(root)
    assert process.stdout is not None
    for _, _ in zip(range(moment), process.stdout, strict=False):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    added = [pack.added for pack in coco_workload(root).packed(root / "packed")]
    assert sum(added) < 2 * TOTAL
    assert folder_content(root / "packed") == folder_content(root / "whole")


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.sampled(2)
def test_packing_leaves_neither_lock_nor_workers_after_a_kill(
    root: Path, stop_signal: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_writing, "CHUNK", 2)
    made = coco_workload(root, size=128)
    made.packed(root / "whole")
    process = packing(root, size=128, workers=2)
    assert process.stdout is not None
    for _, _ in zip(range(5), process.stdout, strict=False):
        pass
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # the workers' results exceed the capacity of the pipe
    process.send_signal(stop_signal)
    process.send_signal(signal.SIGCONT)
    process.wait()
    assert sum(pack.added for pack in made.packed(root / "packed")) < 2 * TOTAL
    assert folder_content(root / "packed") == folder_content(root / "whole")
    process.communicate(timeout=20)  # its output ends when the last worker does


def test_packing_errors_name_changed_images(root: Path) -> None:
    made = coco_workload(root)
    made.packed(root / "packed", whole=True)
    (image, other, *_) = sorted((root / "imagenet" / "train" / "n01443537").iterdir())
    other.write_bytes(other.read_bytes())  # newer, with the same content
    assert [pack.added for pack in made.packed(root / "packed", whole=True)] == [0, 0]
    age = image.stat()
    save_jpeg(image, np.zeros((40, 40, 3), np.uint8))
    os.utime(image, ns=(age.st_atime_ns, age.st_mtime_ns))
    with pytest.raises(
        ValueError, match=f"classification-36 is out of date: train/n01443537/{image.name} changed since"
    ):
        made.packed(root / "packed", whole=True)


@pytest.mark.parametrize("cut", [1, 7, 36 * 36 * 4 - 1, 36 * 36 * 4 + 5])
@pytest.mark.parametrize("file", ["rows.u8", "index.jsonl"])
@pytest.mark.sampled(2)
def test_packing_repeats_truncated_rows_and_lines(
    root: Path, file: str, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(task: str, done: int, total: int) -> None:
        if task == "segmentation" and done >= 20:
            raise StopError

    monkeypatch.setattr(pack_writing, "CHUNK", 2)
    coco_workload(root).packed(root / "whole")
    with pytest.raises(StopError):
        coco_workload(root).packed(root / "packed", progress=stop)
    path = root / "packed" / "segmentation-36" / file
    os.truncate(path, max(0, path.stat().st_size - cut))
    coco_workload(root).packed(root / "packed")
    assert folder_content(root / "packed") == folder_content(root / "whole")


def test_pack_of_an_interrupted_packing_is_not_read(root: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coco_workload(root).packed(root / "packed", progress=stop)
    with pytest.warns(UserWarning, match="image files are read instead"):
        coco_workload(root).data()


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


def lengthen(path: Path) -> None:
    """Reduces the length of the index in the manifest."""
    change_manifest(path, length=80)


@pytest.mark.parametrize("workers", [0, 1])
def test_pack_errors_after_a_flipped_bit_name_the_cure(root: Path, workers: int) -> None:
    coco_workload(root).packed(root / "packed")
    folder = root / "packed" / "segmentation-36"
    flip(folder / "rows.u8", 12345)
    (broken,) = Pack.open(folder).verify()
    with pytest.raises(
        ValueError, match=r"rows\.u8 is damaged.*Remove the folder .*segmentation-36 and run `paretorch data pack`"
    ) as caught:
        all_images(coco_workload(root, workers=workers))
    assert broken in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("rows.u8", lambda path: os.truncate(path, path.stat().st_size - 1)),
        ("rows.u8", lambda path: path.unlink()),
        ("index.jsonl", lambda path: flip(path, 40)),
        ("index.jsonl", lambda path: path.unlink()),
        ("pack.json", lambda path: path.write_text("{}")),
        ("pack.json", lambda path: path.write_text("no json")),
        ("pack.json", lambda path: change_manifest(path, format="other")),
        ("pack.json", lambda path: change_manifest(path, lines="many")),
        ("index.jsonl", lambda path: lengthen(path.parent / "pack.json")),
    ],
)
@pytest.mark.sampled(3)
def test_pack_with_changed_files_is_an_error_when_opened(root: Path, file: str, damage: Any) -> None:
    coco_workload(root).packed(root / "packed")
    damage(root / "packed" / "classification-36" / file)
    with pytest.raises(ValueError, match=f"{file} is damaged or was changed: .*`paretorch data pack` again"):
        coco_workload(root).data()


def test_pack_of_an_earlier_version_is_read(root: Path) -> None:
    coco_workload(root).packed(root / "packed")
    expected = all_images(coco_workload(root))
    for path in (root / "packed").glob("*/pack.json"):
        values = json.loads(path.read_text())
        del values[DIGEST]
        path.write_text(json.dumps(values | {"format": UNSEALED}))
    assert equal_tensors(all_images(coco_workload(root)), expected)


def test_pack_of_older_data_is_an_error(root: Path) -> None:
    coco_workload(root).packed(root / "packed")
    path = root / "coco" / "annotations" / "instances_train2017.json"
    values = json.loads(path.read_text())
    values["annotations"].pop()
    path.write_text(json.dumps(values))
    for act in (lambda: coco_workload(root).data(), lambda: coco_workload(root).packed(root / "packed")):
        with pytest.raises(ValueError, match=r"segmentation-36 is out of date: instances_train2017\.json changed"):
            act()
    image = next((root / "imagenet" / "train" / "n01440764").iterdir()).read_bytes()
    (root / "imagenet" / "train" / "n00000001").mkdir()
    (root / "imagenet" / "train" / "n00000001" / "a.JPEG").write_bytes(image)
    with pytest.raises(ValueError, match="classification-36 is out of date: classes of train changed"):
        coco_workload(root).data()


def test_packing_twice_at_once_is_an_error(root: Path) -> None:
    def again(task: str, *_: int) -> None:
        with pytest.raises(BlockingIOError, match=rf"another process is packing into .*{task}-36: wait for it"):
            coco_workload(root).packed(root / "packed")
        refused.add(task)

    refused: set[str] = set()
    coco_workload(root).packed(root / "packed", progress=again)
    assert refused == set(TASKS)


@pytest.mark.parametrize("change", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved"))])
def test_packing_stops_when_its_folder_is_moved_or_removed(
    root: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_writing, "CHUNK", 2)
    reported = []

    def progress(_: str, packed: int, total: int) -> None:
        reported.append((packed, total))
        if packed == 4:
            change(root / "packed" / "classification-36")

    with pytest.raises(MovedFolderError, match="classification-36"):
        coco_workload(root).packed(root / "packed", progress=progress)
    assert reported[-1][0] == 4 < reported[-1][1]
    assert not (root / "packed" / "classification-36").exists()


def test_packing_checks_disk_space_before_writing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match=r"39 images of 36 x 36 pixels need 151\.6 kB, .* has 100 bytes free.*--out"):
        coco_workload(root).packed(root / "packed")


def test_packs_are_separate_for_each_task(root: Path) -> None:
    made = coco_workload(root)
    assert [made.pack_folder(task).name for task in TASKS] == ["classification-36", "segmentation-36"]
    save_jpeg(root / "imagenet" / "train" / "n01440764" / "extra.JPEG", np.zeros((40, 40, 3), np.uint8))
    assert [pack.images for pack in made.packed(root / "packed", whole=True)] == [55, 54]


def test_pack_errors_name_a_file_that_cannot_grow_and_packing_continues(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    made = ImagenetCoco(root=str(write_both(tmp_path)), **{**SMALL, "train": 24, "validation": 9, "test": 6})
    made.packed(tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"no space left to write .*rows\.u8: .*`ulimit -f` allows no larger file.* it resumes"
        ):
            made.packed(tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    made.packed(tmp_path / "cut")
    for task in TASKS:
        cut, whole = (Pack.open(made.pack_folder(task, tmp_path / name)).manifest for name in ("cut", "whole"))
        assert cut == whole
