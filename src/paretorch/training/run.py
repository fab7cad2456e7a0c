"""A run: everything that decides what a training run computes, as plain values."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paretorch.training.names.constructors import parse
from paretorch.workloads.streams import Plain

__all__ = ["Plain", "Run"]

# fields younger than the first records: written only where they differ from this, so that those keep their keys
YOUNGER: Mapping[str, Plain] = {
    "test": True, "clip": None, "schedule": "constant", "warmup": 0.0, "front": "", "front_options": {},
}  # fmt: skip

SCHEDULES = ("constant", "cosine")


def falling(schedule: str) -> tuple[float, int]:
    """Of ``"step(factor, epochs)"``: by what the learning rate is multiplied, and after how many epochs each time.

    Raises:
        ValueError: it is not of that form, the factor not in (0, 1), or there are no epochs.

    Example:
        >>> falling("step(0.5, 100)")
        (0.5, 100)
    """
    call = parse(schedule)
    values = inspect.signature(lambda factor, epochs: None)
    try:
        given = values.bind(*call.positional, **call.named).arguments
        factor, epochs = given["factor"], given["epochs"]
        right = call.name == "step" and 0 < factor < 1 and isinstance(epochs, int) and epochs >= 1
    except TypeError:
        right = False
    if not right:
        raise ValueError(
            f"schedule is 'constant' or 'cosine', got {schedule!r}; or 'step(0.5, 100)': times a factor in (0, 1) each time that "
            "so many epochs are over"
        )
    return float(factor), epochs


@dataclass(frozen=True)
class Run:
    """One training run. Equal runs give equal numbers on the same machine.

    Args:
        workload: a shipped workload's name, an importable module, or a path that ends in ``.py``.
        options: the workload's own fields, by name.
        tasks: the tasks trained; empty for all of them. One name is the single-task baseline.
        method: a balancing method, written as its constructor: ``"CAGrad(c=0.4)"``.
        surface: where gradients are compared: ``"features"`` (Fork) or ``"parameters"`` (Balancer).
        door: further options of the Fork or Balancer, by name (``every``, ``scale``, ``heads``).
        optimizer: a class of torch.optim or paretorch.optim, by name.
        optimizer_options: its arguments, by name (``lr`` among them).
        epochs: passes over the training data.
        batch_size: samples per step.
        seed: decides initial weights, data order and every other random draw.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, with an index if wanted.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast).
        deterministic: ask torch for deterministic kernels.
        test: score the test set after training; a tuning's trials leave it alone.
        clip: the length to which longer gradients over all parameters are shortened before a step; an optimizer that sees
            every task's gradient shortens each of them. None: never.
        schedule: of the learning rate, step by step: ``"constant"``, ``"cosine"``, half a wave down to zero, or ``"step(0.5,
            100)"``, times 0.5 each time that 100 epochs are over.
        warmup: the share of all steps, in 0..1, over which the learning rate first rises in a straight line.
        front: an algorithm that trains a set of models, written as its constructor: ``"MT2O(adapt='hypervolume')"``; empty:
            one model is trained, by ``method``.
        front_options: the other options of a front, by name: ``models``, ``preferences``, ``margin``, ``starts``,
            ``execution``, ``reference``.
    """

    workload: str
    options: Mapping[str, Plain] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    method: str = "Equal()"
    surface: str = "features"
    door: Mapping[str, Plain] = field(default_factory=dict)
    optimizer: str = "Adam"
    optimizer_options: Mapping[str, Plain] = field(default_factory=lambda: {"lr": 1e-3})
    epochs: int = 1
    batch_size: int = 256
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    deterministic: bool = False
    test: bool = True
    clip: float | None = None
    schedule: str = "constant"
    warmup: float = 0.0
    front: str = ""
    front_options: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.surface not in ("features", "parameters"):
            raise ValueError(f"surface is 'features' or 'parameters', got {self.surface!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is 'float32' or 'bfloat16', got {self.precision!r}")
        if self.schedule not in SCHEDULES:
            falling(self.schedule)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, 0 <= warmup < 1, got {self.warmup}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is a length above 0, or None, got {self.clip}")
        if self.front_options and not self.front:
            raise ValueError(
                f"options of a front ({', '.join(self.front_options)}) without one: name its algorithm in front, as in "
                "'MT2O()'"
            )
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is a whole number of 64 bits, from -2^63 to 2^63 - 1, got {self.seed}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        values = dataclasses.asdict(self) | {"tasks": list(self.tasks)}
        return {name: value for name, value in values.items() if name not in YOUNGER or value != YOUNGER[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """The run that :meth:`to_json` wrote."""
        return cls(**{**values, "tasks": tuple(values["tasks"])})

    @property
    def key(self) -> str:
        """A short name of the run's values: equal runs share it, unequal runs do not."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
