"""Pretrained weights of an encoder, from torchvision or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.extras import extra
from paretorch.storage.tensor_files import read_tensors
from paretorch.workloads.models.encoders import ENCODERS, Encoder

TORCHVISION = "torchvision"
NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}  # for weights
# prefixes of the names of layers in torchvision's models, checkpoints of runs and wrapped models
PREFIXES = ("features.", "", "encoder.features.", "encoder.", "module.features.", "module.", "module.encoder.features.")


def load_encoder_weights(encoder: Encoder, source: str | Path) -> None:
    """Loads weights into an encoder.

    The names in a file may be those of torchvision's whole model, of the encoder, or of a checkpoint of a run; layers that the
    encoder does not have (a classifier, heads) are ignored.

    Args:
        encoder: to load into; unchanged if an error is raised.
        source: ``"torchvision"``: its best ImageNet weights, downloaded unless they are in torch's cache; otherwise the path of
            a ``.safetensors`` file.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it cannot be read, or a tensor is missing, has another shape or type, or is not finite. Or torchvision has no
            such encoder.
        ConnectionError: torchvision's weights cannot be downloaded.
    """
    found = _from_torchvision(encoder) if source == TORCHVISION else _from_file(Path(source))
    own = encoder.features.state_dict()
    prefix = max(PREFIXES, key=lambda before: sum(before + name in found for name in own))
    loaded: dict[str, Tensor] = {}
    for name, tensor in own.items():
        given = found.get(prefix + name)
        if given is None and name.endswith("num_batches_tracked"):
            given = tensor  # not in older files
        if given is None:
            raise ValueError(
                f"encoder weights {source}: expected a tensor {name!r} for {encoder.name}, found "
                f"{', '.join(repr(each) for each in list(found)[:3]) or 'none'}, ... Are they of another architecture?"
            )
        if given.shape != tensor.shape:
            raise ValueError(
                f"encoder weights {source}: {prefix + name!r} has the shape {tuple(given.shape)}, {encoder.name} expects "
                f"{tuple(tensor.shape)}. Use the width with which the weights were trained (1.0 for pretrained ones)"
            )
        kinds = NUMBERS if tensor.is_floating_point() else {tensor.dtype}
        if given.dtype not in kinds or not bool(given.to(tensor.dtype).isfinite().all()):
            raise ValueError(
                f"encoder weights {source}: {prefix + name!r} has numbers of {given.dtype}, or some that are not finite: "
                f"expected finite ones of {tensor.dtype}"
            )
        loaded[name] = given
    encoder.features.load_state_dict(loaded)


def _from_torchvision(encoder: Encoder) -> Mapping[str, Tensor]:
    if encoder.name not in ENCODERS:
        raise ValueError(
            f"encoder_weights: torchvision has no weights for {encoder.name}: use one of {', '.join(ENCODERS)}, or omit them"
        )
    with extra("studies"):
        from torchvision.models import get_model_weights
    weights: Any = get_model_weights(encoder.name).DEFAULT  # type: ignore[attr-defined, unused-ignore]
    try:
        found: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"cannot download {weights.url}: {error}. Download it elsewhere and name the file: --encoder-weights FILE"
        ) from None
    return found


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"encoder weights {path}: there is no such file")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"encoder weights {path}: expected a .safetensors file; files of torch.save are not unpickled. To convert "
            "one: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
        )
    try:
        _, read = read_tensors(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"encoder weights {path}: not a .safetensors file: {error}") from None
    if not read:
        raise ValueError(f"encoder weights {path}: expected tensors, got none")
    return read
