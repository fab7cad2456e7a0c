"""A front on disk: ``front.json``, and one safetensors file per model. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.extras import extra
from paretorch.pareto.front import Front, Moment
from paretorch.storage import atomic
from paretorch.storage.ownership import MARK, check_front
from paretorch.storage.regular_files import open_regular, read_regular

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
    with extra("studies"):
        from safetensors.torch import save as serialize
    check_front(folder, FORMAT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "front.json").unlink(missing_ok=True)
    digests = []
    for member, state in enumerate(front.states):
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        content = serialize(tensors, metadata={MARK: FORMAT})
        atomic.write(folder / _name(member), content)
        digests.append(hashlib.sha256(content).hexdigest())
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
    strict = _strict(values)
    atomic.write(
        folder / "front.json", json.dumps({**strict, "checksum": _checksum(strict)}, indent=1, allow_nan=False).encode()
    )
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
    with extra("studies"):
        from safetensors.torch import load as deserialize
    values = read_values(folder / "front.json")
    own = {name: tuple(value.shape) for name, value in template.state_dict().items()}
    states: list[Mapping[str, Tensor]] = []
    for member, digest in enumerate(values["sha256"]):
        path = folder / _name(member)
        try:
            with open_regular(path) as file:
                content = file.read()
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the front in {folder} is not whole") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        state = deserialize(content)
        _fits(own, {name: tuple(value.shape) for name, value in state.items()}, path)
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
        values = json.loads(read_regular(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: expected a folder that Front.save wrote") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: it cannot be read as JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: another version of paretorch wrote it")
    try:
        whole = values.pop("checksum", None) == _checksum(values)
    except ValueError:  # a number that is not finite, which is never written
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: its content is not what was written")
    return dict(_numbers(values))


def _fits(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    if own == found:
        return
    name = next(name for name in [*own, *found] if own.get(name) != found.get(name))
    raise ValueError(
        f"{path} is of another architecture: the template has {name!r} of shape {own.get(name, 'none')}, the file "
        f"{found.get(name, 'none')}. Give a model made as the front's were"
    )


def _strict(value: Any) -> Any:
    """Numbers that are not finite as strings: JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return value


def _numbers(value: Any) -> Any:
    """The reverse of :func:`_strict`."""
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list) else value
