"""The folder of a front: ``front.json``, and one safetensors file per model. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paretorch.pareto.files.ownership import MARK, MAX_HEADER, check_front
from paretorch.pareto.files.stored_front import StoredFront
from paretorch.storage import atomic
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import from_json, name_from_json, read_json, to_json, write_json
from paretorch.storage.regular_files import TooLargeError, read_regular
from paretorch.storage.tensor_files import deserialize, digest, first_difference, host_copies, shapes, write_tensors
from paretorch.storage.value_types import typed

FORMAT = "paretorch front 1"
LARGEST_ITEM = 16  # bytes of a number: complex128
CURE = "Restore it, or train the front again in another folder"


def write(folder: Path, values: Mapping[str, Any], states: Sequence[Mapping[str, Tensor]]) -> None:
    """Writes a front; ``front.json`` is written last, so that a folder that contains it is complete.

    Args:
        folder: created if needed; a front that it contains is replaced.
        values: the numbers of the front, plain values that JSON can represent.
        states: the state dict of each model.

    Raises:
        ValueError: the folder contains a file of such a name that no front wrote; nothing was changed.
        OSError: the disk is full or the folder cannot be written.
    """
    check_front(folder, FORMAT)
    atomic.make_folder(folder)
    atomic.remove_file(folder / "front.json")
    digests = []
    for member, state in enumerate(states):
        digests.append(write_tensors(folder / _name(member), host_copies(state), {MARK: FORMAT}))
    strict = to_json({"format": FORMAT, **values, "sha256": digests})
    write_json(folder / "front.json", {**strict, "checksum": _checksum(strict)})
    member = len(states)
    while (folder / _name(member)).exists():  # of a larger front that was stored here before
        atomic.remove_file(folder / _name(member))
        member += 1


def read(folder: Path, template: nn.Module) -> tuple[StoredFront, list[Mapping[str, Tensor]]]:
    """The numbers and the state dicts of a front that :func:`write` wrote.

    Args:
        folder: of the front.
        template: a module of the models' architecture; unchanged.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: a file is damaged, or the template is of another architecture.
    """
    path = folder / "front.json"
    stored = read_numbers(path)
    own = shapes(template.state_dict())
    most = MAX_HEADER + LARGEST_ITEM * sum(map(math.prod, own.values()))
    states: list[Mapping[str, Tensor]] = []
    for member, expected in enumerate(stored.sha256):
        path = folder / _name(member)
        try:
            content = read_regular(path, most)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the front in {folder} is incomplete") from None
        except TooLargeError:
            raise ValueError(f"{path} is damaged: it has more bytes than any model of this architecture") from None
        if digest(content) != expected:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        with naming_damaged(path, CURE):
            state = deserialize(content)
        _check_shapes(own, shapes(state), path)
        states.append(state)
    return stored, states


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _name(member: int) -> str:
    return f"model-{member:03d}.safetensors"


def read_numbers(path: Path) -> StoredFront:
    """The content of ``front.json``, without the models.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged, or another version wrote it.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected a folder that Front.save wrote") from None
    except ValueError:
        raise ValueError(f"{path} is damaged: it cannot be read as JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: read it with the version of paretorch that wrote it")
    try:
        whole = values.pop("checksum", None) == _checksum(values)
    except ValueError:  # a number that is not finite, which is never written
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: its content is not what was written")
    with naming_damaged(path, CURE):
        found = {**from_json(values), "tasks": [name_from_json(task) for task in values["tasks"]]}
        stored: StoredFront = typed({field.name: found[field.name] for field in fields(StoredFront)}, StoredFront)
        stored.check()
        return stored


def _check_shapes(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    if (name := first_difference(own, found)) is None:
        return
    raise ValueError(
        f"{path} is of another architecture: the template has {name!r} of shape {own.get(name, 'none')}, the file "
        f"{found.get(name, 'none')}. Give a model of the architecture that the front was trained with, "
        "with the layers that the algorithm has added; load_front(folder) makes it for the front of a run"
    )
