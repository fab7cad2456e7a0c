"""Pretrained weights for an encoder: torchvision's, or a file's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretorch.workloads.extras import extra
from paretorch.workloads.models.encoders import ENCODERS, Encoder

TORCHVISION = "torchvision"
# what stands before the names of layers: of torchvision's models, our checkpoints, wrapped models
PREFIXES = ("features.", "", "encoder.features.", "encoder.", "module.features.", "module.", "module.encoder.features.")


def load_encoder_weights(encoder: Encoder, source: str | Path) -> None:
    """Loads weights into an encoder.

    A file's names may be those of torchvision's whole model, of the encoder, or of a checkpoint of a run; layers that the
    encoder does not have (a classifier, heads) are left out.

    Args:
        encoder: receives them; unchanged where they do not fit.
        source: ``"torchvision"``: its best ImageNet weights, downloaded unless they lie in torch's cache; else a path,
            to a ``.safetensors`` file or one of ``torch.save``, which is read without unpickling code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or a tensor is missing or of another shape; both shapes are named.
        ConnectionError: torchvision's weights cannot be fetched.
    """
    found = _of_torchvision(encoder) if source == TORCHVISION else _of_file(Path(source))
    own = encoder.features.state_dict()
    prefix = max(PREFIXES, key=lambda before: sum(before + name in found for name in own))
    loaded: dict[str, Tensor] = {}
    for name, tensor in own.items():
        given = found.get(prefix + name)
        if given is None and name.endswith("num_batches_tracked"):
            given = tensor  # older files have none
        if given is None:
            raise ValueError(
                f"encoder weights {source}: expected a tensor {name!r} for {encoder.name}, found "
                f"{', '.join(repr(each) for each in list(found)[:3]) or 'none'}, ... Are they of another architecture?"
            )
        if given.shape != tensor.shape:
            raise ValueError(
                f"encoder weights {source}: {prefix + name!r} is of shape {tuple(given.shape)}, {encoder.name} expects "
                f"{tuple(tensor.shape)}. Give the width that the weights were trained with (pretrained ones have 1.0)"
            )
        loaded[name] = given
    encoder.features.load_state_dict(loaded)


def _of_torchvision(encoder: Encoder) -> Mapping[str, Tensor]:
    with extra("studies"):
        from torchvision.models import get_model_weights
    weights: Any = get_model_weights(ENCODERS[encoder.name].builder).DEFAULT  # type: ignore[attr-defined]
    try:
        found: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"cannot fetch {weights.url}: {error}. Fetch it elsewhere and give the file: --encoder-weights FILE"
        ) from None
    return found


def _of_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"encoder weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            with extra("studies"):
                from safetensors.torch import load_file
            read: Any = load_file(path)
        else:
            read = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"encoder weights {path}: expected a state dict of tensors, as .safetensors or of torch.save; {reason}"
        ) from None
    except Exception as error:  # safetensors has an error of its own, with no base but this
        if type(error).__name__ != "SafetensorError":
            raise
        raise ValueError(f"encoder weights {path}: not a .safetensors file: {error}") from None
    for name in ("state_dict", "model"):  # as training scripts nest it
        if isinstance(read, Mapping) and isinstance(read.get(name), Mapping):
            read = read[name]
    tensors = (
        {name: value for name, value in read.items() if isinstance(value, Tensor)} if isinstance(read, Mapping) else {}
    )
    if not tensors:
        raise ValueError(
            f"encoder weights {path}: expected a state dict of tensors, got {type(read).__name__} without any"
        )
    return tensors
