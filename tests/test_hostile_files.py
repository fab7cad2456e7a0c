"""Files that are damaged or made to do harm: an error that names the file, or a value of the right types; nothing else."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import reports_many as many
from command_line import call
from damaged_files import changed_bytes, outcome, reshape_file
from front_points import small_front
from pack_folders import EDGE, write_pack
from paretorch.pareto import Front
from paretorch.reports.analysis.summary import summarize
from paretorch.reports.page.page import Contents
from paretorch.reports.reading.load import load_all
from paretorch.storage.json_files import from_json, parse_json, read_json, to_json
from paretorch.storage.seals import SEAL, sealed
from paretorch.storage.tensor_files import read_tensors
from paretorch.training.fronts.run import train_front
from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.record.run_identity import verified_result
from paretorch.training.run import Run
from paretorch.training.tracking.record_reader import scores_on_test_data
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.formats.idx import read_idx
from paretorch.workloads.formats.image_files import read_rgb
from paretorch.workloads.formats.table import read_csv
from paretorch.workloads.loading.image_source import SelectedImage
from paretorch.workloads.packs.pack import Pack
from paretorch.workloads.synthetic import Synthetic
from training_runs import TINY, TINY_FILE, stop_after

RUN = Run(TINY, method="GradNorm()", optimizer="Adam", epochs=2, batch_size=20, seed=5)
FRONT = Run(TINY, front="MT2O()", front_options={"models": 2}, optimizer="Adam", epochs=2, batch_size=30)


def read_report(path: Path) -> None:
    for results in load_all([path]):
        Contents.of(summarize(results))


def copies(folder: Path, name: str, times: int, seed: int, change: Callable[[Path, random.Random], None]) -> list[bool]:
    """Changes copies of a folder with a study or a run, and reads them; whether each was read."""
    draws, read = random.Random(seed), []
    for number in range(times):
        copy = folder.with_name(f"{name}-{seed}-{number}")
        shutil.copytree(folder, copy)
        path = draws.choice(sorted(copy.rglob(name)))
        change(path, draws)
        read.append(outcome(partial(read_report, copy), (copy.name,)))
        outcome(partial(verified_result, path.parent), (copy.name,))
        outcome(partial(scores_on_test_data, path.parent), (copy.name,))
        shutil.rmtree(copy)
    return read


def change_bytes(path: Path, draws: random.Random) -> None:
    path.write_bytes(changed_bytes(path.read_bytes(), draws))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a finished run, a finished front, and a finished study with a failed run."""
    root = tmp_path_factory.mktemp("trained")
    folders = {name: root / name / name for name in ("run", "front", "study")}
    train(RUN, folders["run"], progress=None)
    train_front(FRONT, folders["front"], progress=None)
    study = many.study(["sum", "other", "failed"], epochs=2)
    many.finished(folders["study"], study, ("left", "right"), 2, failed=["failed"])
    return folders


FILES = [
    ("run", "result.json"), ("run", "run.json"), ("front", "result.json"), ("front", "run.json"), ("study", "result.json"),
    ("study", "study.json"), ("study", "failed.json"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_json_of_another_shape_is_an_error_that_names_the_file(trained: dict[str, Path], kind: str, name: str) -> None:
    assert not all(copies(trained[kind], name, 12, seed=1, change=reshape_file))


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_changed_bytes_of_a_finished_folder_are_an_error_that_names_the_file(
    trained: dict[str, Path], kind: str, name: str
) -> None:
    read = copies(trained[kind], name, 4, seed=2, change=change_bytes)
    assert not any(read) or name == "run.json"


@pytest.mark.long
@pytest.mark.parametrize(("kind", "name"), FILES)
def test_hostile_json_in_a_long_campaign(trained: dict[str, Path], kind: str, name: str) -> None:
    copies(trained[kind], name, 700, seed=3, change=reshape_file)
    copies(trained[kind], name, 300, seed=4, change=change_bytes)


def check_front(path: Path, times: int, seed: int) -> int:
    """Reads damaged copies of a front; returns how many were refused."""
    small_front().save(path)
    template, draws, refused = Synthetic(samples=64).model(), random.Random(seed), 0
    for number in range(times):
        copy = path.with_name(f"copy-{number}")
        shutil.copytree(path, copy)
        file = draws.choice(sorted(copy.iterdir()))
        if file.suffix == ".json" and draws.random() < 0.7:
            reshape_file(file, draws)
        else:
            change_bytes(file, draws)
        refused += not outcome(partial(Front.load, copy, template), (copy.name,))
        shutil.rmtree(copy)
    return refused


def test_damaged_front_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    assert check_front(tmp_path / "front", 40, seed=1) > 20


@pytest.mark.long
def test_damaged_front_in_a_long_campaign(tmp_path: Path) -> None:
    assert check_front(tmp_path / "front", 3000, seed=2) > 1500


@pytest.mark.parametrize("declared", ["header", "shape", "offsets"])
def test_tensor_file_that_declares_a_huge_size_needs_no_memory(tmp_path: Path, declared: str) -> None:
    path = tmp_path / "model-000.safetensors"
    offsets = [0, 1 << 50 if declared == "offsets" else 4]
    shape = [1 << 50] if declared in ("shape", "offsets") else [1]
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    length = 1 << 62 if declared == "header" else len(header)
    path.write_bytes(struct.pack("<Q", length) + header + b"\0" * 4)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b'{"a": Infinity}', b'"\\ud800"', b"\xff", b"1" * 5000]
)
def test_json_that_no_file_of_the_package_has_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        read_json(path)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "\\nan", "\\\\inf", "left", ""])
def test_texts_that_resemble_numbers_survive_json(text: str) -> None:
    value = {"names": [text, float("inf")], text: {"loss": 0.5}}
    assert from_json(parse_json(json.dumps(to_json(value), allow_nan=False))) == value


def check_table(path: Path, times: int, seed: int) -> None:
    content = "a,b,c\n" + "".join(f"{i},{i / 7:.3f},x{i % 3}\n" for i in range(40))
    draws = random.Random(seed)
    for number in range(times):
        file = path / f"table-{number}.csv"
        file.write_bytes(changed_bytes(content.encode(), draws))
        outcome(partial(read_csv, file), (file.name,))
        file.unlink()


def test_damaged_table_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    check_table(tmp_path, 60, seed=1)


@pytest.mark.long
def test_damaged_table_in_a_long_campaign(tmp_path: Path) -> None:
    check_table(tmp_path, 3000, seed=2)


def named_workload(path: Path) -> str:
    """A file with the workload of the tests, whose tasks are named nan and inf."""
    text = TINY_FILE.read_text().replace('"sign"', '"nan"').replace('"size"', '"inf"')
    path.write_text(text)
    return str(path)


def test_tasks_named_like_numbers_are_trained_and_reported(tmp_path: Path) -> None:
    workload, out = named_workload(tmp_path / "named.py"), str(tmp_path / "runs" / "one")
    code, printed = call("train", workload, "--epochs", "2", "--batch-size", "20", "--out", out)
    assert code == 0, printed
    result = verified_result(Path(out))
    assert result.tasks == ("nan", "inf")
    assert set(result.history[0].losses) == {"nan", "inf"}
    alone = ["train", workload, "--epochs", "2", "--batch-size", "20", "--tasks", "nan", "--out", f"{out}-alone"]
    assert [call(*alone)[0] for _ in range(2)] == [0, 0], "the second call finds the finished run"
    code, printed = call("report", str(tmp_path / "runs"))
    assert code == 0, printed
    assert "nan" in printed
    front = str(tmp_path / "front")
    code, printed = call("front", workload, "--models", "2", "--epochs", "1", "--batch-size", "20", "--out", front)
    assert code == 0, printed
    assert call("report", front)[0] == 0


def test_result_of_an_earlier_version_with_a_task_named_nan_is_read(tmp_path: Path) -> None:
    run = Run("drawn", tasks=("nan", "left"))
    values = many.result(run, ("nan", "left"), 0).to_json()
    values["tasks"] = values["run"]["tasks"] = ["nan", "left"]  # without the backslash
    assert Result.from_json(values).run == run
    assert Result.from_json(values).tasks == ("nan", "left")


def read_pack(folder: Path) -> list[Tensor]:
    pack = Pack.open(folder)
    names = pack.names("train", "a")
    reader = pack.reader([SelectedImage(name) for name in names], EDGE)
    return [reader.read(index)[0] for index in range(len(names))]


def extend(found: list[Tensor], folder: Path) -> None:
    found += read_pack(folder)


def check_pack(folder: Path, times: int, seed: int) -> int:
    """Reads damaged copies of a pack; returns how many were refused."""
    write_pack(folder)
    whole, draws, refused = torch.stack(read_pack(folder)), random.Random(seed), 0
    for number in range(times):
        copy = folder.with_name(f"copy-{number}")
        shutil.copytree(folder, copy)
        file = draws.choice(sorted(copy.iterdir()))
        reshape = file.name == "pack.json" and draws.random() < 0.7
        (reshape_file if reshape else change_bytes)(file, draws)
        found: list[Tensor] = []
        if outcome(partial(extend, found, copy), (copy.name,)):
            assert not found or torch.equal(torch.stack(found), whole), "another picture"
        else:
            refused += 1
        shutil.rmtree(copy)
    return refused


def test_damaged_pack_is_an_error_or_gives_the_same_pictures(tmp_path: Path) -> None:
    assert check_pack(tmp_path / "pack", 60, seed=1) > 30


@pytest.mark.long
def test_damaged_pack_in_a_long_campaign(tmp_path: Path) -> None:
    assert check_pack(tmp_path / "pack", 3000, seed=2) > 1500


def check_pictures(folder: Path, times: int, seed: int) -> None:
    draws = random.Random(seed)
    pixels = np.random.default_rng(0).integers(0, 256, size=(24, 20, 3), dtype=np.uint8)
    contents = {}
    for form in ("png", "jpeg", "bmp", "webp"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form)
        contents[form] = buffer.getvalue()
    digits = struct.pack(">IIII", 0x803, 4, 7, 5) + bytes(range(140))
    for number in range(times):
        form = draws.choice([*contents, "idx3-ubyte", "idx3-ubyte.gz"])
        content = contents.get(form, gzip.compress(digits) if form.endswith("gz") else digits)
        path = folder / f"picture-{number}.{form}"
        path.write_bytes(changed_bytes(content, draws))
        if form in contents:
            outcome(partial(read_rgb, path, path.name), (path.name,))
        else:
            outcome(partial(read_idx, path), (path.name,))
        path.unlink()


def test_damaged_pictures_are_errors_that_name_the_file(tmp_path: Path) -> None:
    check_pictures(tmp_path, 120, seed=1)


@pytest.mark.long
def test_damaged_pictures_in_a_long_campaign(tmp_path: Path) -> None:
    check_pictures(tmp_path, 6000, seed=2)


class Touching:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickle_under_any_name_is_not_executed(trained: dict[str, Path], tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(Touching(str(tmp_path / "executed")), protocol)
    for kind, folder in trained.items():
        copy = tmp_path / f"{kind}-{protocol}"
        shutil.copytree(folder, copy)
        for path in sorted(each for each in copy.rglob("*") if each.suffix in (".json", ".jsonl", ".safetensors")):
            before = path.read_bytes()
            path.write_bytes(content)
            outcome(partial(read_report, copy), (copy.name,))
            if path.suffix == ".safetensors":
                with pytest.raises(ValueError, match=r"."):
                    read_tensors(path)
            path.write_bytes(before)
    for name in ("x.npy", "x.csv", "x.png", "x-idx3-ubyte"):
        path = tmp_path / name
        path.write_bytes(content)
        for read in (partial(read_array, path, name), partial(read_csv, path), partial(read_rgb, path, name)):
            outcome(read, (name,))
        outcome(partial(read_idx, path), (name,))
    np.save(tmp_path / "objects.npy", np.array([Touching(str(tmp_path / "executed"))], dtype=object))
    assert not outcome(lambda: read_array(tmp_path / "objects.npy", "objects.npy"), ("objects.npy",))
    assert not (tmp_path / "executed").exists()


def test_checkpoint_that_lists_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "run", progress=stop_after(1, of=2))
    path = tmp_path / "run" / "checkpoint" / "epoch-1" / "state.json"
    values = json.loads(path.read_text())
    for name in ("/etc/hostname", "../../run.json", "other.safetensors"):
        changed = {key: value for key, value in values.items() if key != SEAL}
        changed["files"] = {**values["files"], name: {"bytes": 3, "sha256": "0"}}
        path.write_text(json.dumps(sealed(changed)))
        with pytest.raises(ValueError, match=r"state\.json is damaged: it does not list exactly") as refused:
            train(RUN, tmp_path / "run", progress=None)
        assert f"Remove the folder {path.parent} " in str(refused.value)
