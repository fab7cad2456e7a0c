"""The folder of a front: ``front.json``, and one safetensors file per model. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paretorch.extras import extra
from paretorch.storage import atomic
from paretorch.storage.ownership import MARK, check_front
from paretorch.storage.regular_files import open_regular, read_regular

FORMAT = "paretorch front 1"


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
    with extra("studies"):
        from safetensors.torch import save as serialize
    check_front(folder, FORMAT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "front.json").unlink(missing_ok=True)
    digests = []
    for member, state in enumerate(states):
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        content = serialize(tensors, metadata={MARK: FORMAT})
        atomic.write(folder / _name(member), content)
        digests.append(hashlib.sha256(content).hexdigest())
    strict = _strict({"format": FORMAT, **values, "sha256": digests})
    atomic.write(
        folder / "front.json", json.dumps({**strict, "checksum": _checksum(strict)}, indent=1, allow_nan=False).encode()
    )
    member = len(states)
    while (folder / _name(member)).exists():  # of a larger front that was stored here before
        (folder / _name(member)).unlink()
        member += 1


def read(folder: Path, template: nn.Module) -> tuple[dict[str, Any], list[Mapping[str, Tensor]]]:
    """The values and the state dicts of a front that :func:`write` wrote.

    Args:
        folder: of the front.
        template: a module of the models' architecture; unchanged.

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
            raise ValueError(f"{path} is missing: the front in {folder} is incomplete") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{path} is damaged: its content is not what was written")
        state = deserialize(content)
        _check_shapes(own, {name: tuple(value.shape) for name, value in state.items()}, path)
        states.append(state)
    return values, states


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _name(member: int) -> str:
    return f"model-{member:03d}.safetensors"


def read_values(path: Path) -> dict[str, Any]:
    """The content of ``front.json``, without the models.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged, or another version wrote it.
    """
    try:
        values = json.loads(read_regular(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected a folder that Front.save wrote") from None
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


def _check_shapes(own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    if own == found:
        return
    name = next(name for name in [*own, *found] if own.get(name) != found.get(name))
    raise ValueError(
        f"{path} is of another architecture: the template has {name!r} of shape {own.get(name, 'none')}, the file "
        f"{found.get(name, 'none')}. Give a model of the architecture that the front was trained with"
    )


def _strict(value: Any) -> Any:
    """Non-finite numbers as strings: JSON has none."""
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
