"""Files of every kind that are damaged, exchanged or made to do harm: an error that names the file, or the undamaged value."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damaged_files import changed_bytes, outcome, reshape_file
from faults.file_kinds import FileKind, file_kinds, json_kind, plain

NAMES = (
    "result.json", "run.json", "events.jsonl", "failed.json", "tracking.json", "unfinished run.json",
    "unfinished events.jsonl", "checkpoint state.json", "checkpoint model.safetensors", "checkpoint optimizer.safetensors",
    "checkpoint door.safetensors", "checkpoint random.safetensors", "front.json", "model-001.safetensors",
    "training.safetensors", "weights.json", "search.json", "study.json", "tuning.json", "pack.json", "index.jsonl", "rows.u8",
    "weights.safetensors", "exported model", "trusted-workloads.txt", "table.csv", "table.csv.gz", "table.csv.zip",
    "table.arff", "picture.png", "picture.jpeg", "picture.bmp", "picture.webp", "numbers.png", "array.npy",
    "digits-idx3-ubyte", "digits-idx3-ubyte.gz", "instances_val2017.json", "masks", "list_attr_celeba.txt",
    "list_eval_partition.txt", "test_batch.bin", "image.npy", "label.npy", "depth.npy", "normal.npy", "qm9_part2.csv",
    "mnist_5k.csv.gz",
)  # fmt: skip
MEMORY = 1 << 30  # bytes by which reading a damaged file may increase the memory of the process
Damage = Callable[["Case"], None]


class Touching:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


class Case:
    """A file that is damaged, and restored after it was read.

    Args:
        kind: of the file.
        draws: decide the damage.
        mark: a file that exists if code in a file was executed.
    """

    def __init__(self, kind: FileKind, draws: random.Random, mark: Path) -> None:
        self.kind, self.path, self.draws, self.mark = kind, kind.path, draws, mark
        self.content = kind.path.read_bytes()
        self.beside = {path: path.read_bytes() for path in kind.path.parent.iterdir() if path.is_file()}
        self.value = plain(kind.read(kind.path))
        self.is_json = json_kind(kind.path)
        self.number = 0

    def write(self, content: bytes) -> None:
        """Replaces the file; its time is another one, by which a reader may know that it has changed."""
        self.remove()
        self.path.write_bytes(content)
        self.number += 1
        os.utime(self.path, ns=(self.number, self.number))

    def remove(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)

    def restore(self) -> None:
        self.write(self.content)
        for path, content in self.beside.items():
            if path != self.path and (not path.is_file() or path.read_bytes() != content):
                path.write_bytes(content)

    def read(self) -> bool:
        """Whether the file is read; checks that a refusal names it, and that no code was executed."""
        found: list[Any] = []
        names = (self.path.name, self.path.parent.name, *self.kind.names)
        accepted = outcome(lambda: found.append(self.kind.read(self.path)), names)
        assert not self.mark.exists(), "code was executed"
        self.found = plain(found[0]) if accepted else None
        return accepted


def change(case: Case) -> None:
    case.write(changed_bytes(case.content, case.draws))


def extend(case: Case) -> None:
    tail = case.draws.choice([b"\0", b"\n", b"{}", case.content, case.draws.randbytes(30)])
    case.write(case.content + tail)


def zero(case: Case) -> None:
    start = case.draws.randrange(len(case.content))
    end = min(len(case.content), start + case.draws.randrange(1, 512))
    case.write(case.content[:start] + bytes(end - start) + case.content[end:])


def empty(case: Case) -> None:
    case.write(b"")


def exchange(case: Case) -> None:
    case.write(case.kind.other)


def link(case: Case) -> None:
    """A link to itself, to a file outside, to the same content, to that of another file, or to a device."""
    elsewhere = case.mark.with_name(f"elsewhere{case.path.suffix}")
    elsewhere.write_bytes(case.draws.choice([case.content, case.kind.other, b"text"]))
    target = case.draws.choice([case.path, Path("/etc/passwd"), Path("/dev/zero"), Path("../.."), elsewhere])
    case.remove()
    case.path.symlink_to(target)


def irregular(case: Case) -> None:
    case.remove()
    case.draws.choice([os.mkfifo, os.mkdir])(case.path)


def pickled(case: Case) -> None:
    content = pickle.dumps(Touching(str(case.mark)), case.draws.choice([0, 2, 5]))
    if case.path.suffix == ".npy":
        np.save(case.path, np.array([Touching(str(case.mark))], dtype=object))
        content = case.path.read_bytes()
    case.write(content)


def declared_size(case: Case) -> None:
    """Headers that declare far more than the file has, in the format of the file or another one."""
    tensors = json.dumps({"x": {"dtype": "F32", "shape": [1 << 50], "data_offsets": [0, 1 << 52]}}).encode()
    heads = [
        struct.pack("<Q", len(tensors)) + tensors,
        struct.pack("<Q", 1 << 62) + tensors,
        struct.pack("<Q", case.draws.randrange(1 << 40)),
        struct.pack(">IIII", 0x803, 1 << 31, 1 << 31, 1 << 31),
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 3), }".ljust(118),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1 << 30, 1 << 30) + b"\x08\x02\0\0\0",
    ]
    head = case.draws.choice(heads)
    case.write(head + case.content[len(head) :])


def sparse(case: Case) -> None:
    """The content, followed by so many zeros that they cannot be read in time."""
    case.write(case.content)
    os.truncate(case.path, 1 << 40)


def other_json(case: Case) -> None:
    """JSON of another shape, with the digests that belong to it where it is one value."""
    if not case.is_json:
        case.write(case.draws.choice([b"[" * 100_000, b'{"a":NaN}', b"1" * 5000, b'"\\ud800"\n', b"{}\n", b"null\n"]))
        return
    case.write(case.content)
    reshape_file(case.path, case.draws)


SEALED: tuple[tuple[Damage, int], ...] = ((change, 12), (extend, 1), (zero, 2), (empty, 1))
HOSTILE: tuple[tuple[Damage, int], ...] = (
    (exchange, 1), (link, 2), (irregular, 1), (pickled, 1), (declared_size, 2), (other_json, 6), (sparse, 1),
)  # fmt: skip
HARMLESS = (exchange, link, other_json)  # of which the result may be another valid file


def check_kind(case: Case, count: int) -> int:
    """Damages a file ``count`` times; returns how often it was refused."""
    damages, weights = zip(*SEALED, *HOSTILE, strict=True)
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for damage in case.draws.choices(damages, weights, k=count):
        damage(case)
        if not case.read():
            refused += 1
        elif damage not in HARMLESS:
            assert not case.kind.sealed or case.found == case.value, f"{damage.__name__}: another value was accepted"
        elif damage is exchange:
            assert not case.kind.owned or case.found == case.value, "a file of another run was accepted"
        case.restore()
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY
    assert plain(case.kind.read(case.path)) == case.value, "the undamaged file is read as before"
    return refused


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileKind]:
    return file_kinds(tmp_path_factory.mktemp("kinds"))


def test_damaged_kinds_are_all_kinds(kinds: dict[str, FileKind]) -> None:
    assert tuple(kinds) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damaged_file_of_every_kind_is_an_error_or_gives_the_same_value(
    name: str, kinds: dict[str, FileKind], tmp_path: Path, seed: int
) -> None:
    case = Case(kinds[name], random.Random(f"{name} {seed}"), tmp_path / "executed")
    for damage in (exchange, empty, pickled, irregular, sparse):  # once each
        damage(case)
        accepted = case.read()
        assert not accepted or case.found == case.value or damage is exchange
        assert not accepted or case.found == case.value or not case.kind.owned
        case.restore()
    assert check_kind(case, 60) >= 15


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_damaged_file_of_every_kind_in_a_long_campaign(
    name: str, kinds: dict[str, FileKind], tmp_path: Path, seed: int, given_count: int | None
) -> None:
    count = given_count or 10_000
    case = Case(kinds[name], random.Random(f"{name} {seed}"), tmp_path / "executed")
    assert check_kind(case, count) > count / 4
