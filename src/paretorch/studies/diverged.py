"""Whether a run can still come to anything: parameters that are no numbers stay so, whatever is trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from paretorch.extras import extra
from paretorch.storage.checkpoint_folder import saved_checkpoints


class DivergedError(FloatingPointError):
    """A trial whose parameters are no numbers any more."""


def check_numbers(checkpoints: Path) -> None:
    """Looks at the parameters of the newest checkpoint; without one there is nothing to see.

    Args:
        checkpoints: a run's folder of them.

    Raises:
        DivergedError: some are nan; the message names them.
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
                    f"after {saved[-1].name} the model's {name!r} holds nan: nothing will come of this trial"
                )
