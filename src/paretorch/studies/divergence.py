"""Detection of trials whose parameters are nan."""

from __future__ import annotations

from pathlib import Path

import torch

from paretorch.extras import extra
from paretorch.storage.checkpoint_folder import saved_checkpoints


class DivergedError(FloatingPointError):
    """A parameter of a trial is nan, which no further training changes."""


def check_parameters(checkpoints: Path) -> None:
    """Checks the parameters in the newest checkpoint, if there is one.

    Args:
        checkpoints: folder of a run's checkpoints.

    Raises:
        DivergedError: a parameter contains nan; the message names it.
    """
    saved = saved_checkpoints(checkpoints)
    if not saved:
        return
    with extra("studies"):
        from safetensors import safe_open
    with safe_open(saved[-1] / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            value = tensors.get_tensor(name)
            if value.is_floating_point() and bool(torch.isnan(value).any()):
                raise DivergedError(
                    f"after {saved[-1].name} the model's {name!r} contains nan: the trial cannot recover and is stopped"
                )
