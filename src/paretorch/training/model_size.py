"""Numbers of trained parameters of a model."""

from __future__ import annotations

from torch import nn


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """The number of trained parameters in the ``encoder``, in the head of each task, and in ``total``."""

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)

    counts = {f"head {task}": count(head) for task, head in model.heads.items()}  # type: ignore[union-attr, operator]
    return {"encoder": count(model.encoder), **counts, "total": count(model)}  # type: ignore[arg-type]
