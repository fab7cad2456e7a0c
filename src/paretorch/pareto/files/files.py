"""A front on disk: ``front.json``, and one safetensors file per model. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.pareto.front import Front, Moment
from paretorch.storage.json_files import from_json, read_json, to_json, write_json
from paretorch.storage.ownership import MARK, check_front
from paretorch.storage.regular_files import open_regular
from paretorch.storage.tensor_files import deserialize, digest, first_difference, host_copies, shapes, write_tensors

FORMAT = "paretorch front 1"


def save(front: Front, folder: Path) -> None:
    """Writes a front; ``front.json`` comes last, so that a folder that has one is whole.

    Args:
        front: what to write.
        folder: made where it is not there; a front that it holds is replaced.

    Raises:
        ValueError: the folder has a file of such a name that no front wrote; nothing was changed.
        OSError: the disk is full or the folder cannot be written.
    """
    check_front(folder, FORMAT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "front.json").unlink(missing_ok=True)
    digests = []
    for member, state in enumerate(front.states):
        digests.append(write_tensors(folder / _name(member), host_copies(state), {MARK: FORMAT}))
    values = {
        "format": FORMAT,
        "tasks": list(front.tasks),
        "preferences": front.preferences.tolist(),
        "losses": front.losses.tolist(),
        "metrics": list(front.metrics),
        "diverged": list(front.diverged),
        "reference": None if front.reference is None else list(front.reference),
        "history": [dataclasses.asdict(moment) for moment in front.history],
        "facts": dict(front.facts),
        "sha256": digests,
    }
    strict = to_json(values)
    write_json(folder / "front.json", {**strict, "checksum": _checksum(strict)})
    member = len(front.states)
    while (folder / _name(member)).exists():  # of a larger front that was here before
        (folder / _name(member)).unlink()
        member += 1


def load(folder: Path, template: nn.Module) -> Front:
    """Reads a front.

    Args:
        folder: that :func:`save` wrote.
        template: a module of the models' architecture; left as it is.

    Raises:
        FileNotFoundError: there is no front.
        ValueError: a file is damaged, or the template is of another architecture.
    """
    values = read_values(folder / "front.json")
    own = shapes(template.state_dict())
    states: list[Mapping[str, Tensor]] = []
    for member, expected in enumerate(values["sha256"]):
        path = folder / _name(member)
        try:
            with open_regular(path) as file:
                content = file.read()
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the front in {folder} is not whole") from None
        if digest(content) != expected:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        state = deserialize(content)
        _fits(own, shapes(state), path)
        states.append(state)
    moments = [Moment(**{**m, "losses": tuple(map(tuple, m["losses"]))}) for m in values["history"]]
    return Front(
        tasks=tuple(values["tasks"]),
        preferences=torch.tensor(values["preferences"], dtype=torch.float64),
        losses=torch.tensor(values["losses"], dtype=torch.float64),
        metrics=tuple(values["metrics"]),
        states=tuple(states),
        template=template,
        diverged=tuple(values["diverged"]),
        history=tuple(moments),
        reference=None if values["reference"] is None else tuple(values["reference"]),
        facts=values["facts"],
    )


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _name(member: int) -> str:
    return f"model-{member:03d}.safetensors"


def read_values(path: Path) -> dict[str, Any]:
    """What ``front.json`` holds, without the models.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or another version's.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: expected a folder that Front.save wrote") from None
    except ValueError:
        raise ValueError(f"{path} is damaged: it cannot be read as JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: another version of paretorch wrote it")
    try:
        whole = values.pop("checksum", None) == _checksum(values)
    except ValueError:  # a number that is not finite, which is never written
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: its content is not what was written")
    return dict(from_json(values))


def _fits(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    if (name := first_difference(own, found)) is None:
        return
    raise ValueError(
        f"{path} is of another architecture: the template has {name!r} of shape {own.get(name, 'none')}, the file "
        f"{found.get(name, 'none')}. Give a model made as the front's were"
    )
