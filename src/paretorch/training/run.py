"""One training run as plain values."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paretorch.storage.json_files import from_json, name_from_json
from paretorch.storage.value_types import typed
from paretorch.training.names.constructors import parse
from paretorch.workloads.streams import Plain

__all__ = ["Plain", "Run"]

# fields added after the first records: written only where they differ from these values, so that old runs keep their keys
ADDED: Mapping[str, Plain] = {
    "test": True, "clip": None, "schedule": "constant", "warmup": 0.0, "front": "", "front_options": {},
    "keep": "last", "stationarity": 0,
}  # fmt: skip

SCHEDULES = ("constant", "cosine")
KEPT = ("last", "best")


def step_decay(schedule: str) -> tuple[float, int]:
    """The factor and the number of epochs in ``"step(factor, epochs)"``: every so many epochs the rate is multiplied by it.

    Raises:
        ValueError: it is not of that form, the factor is not in (0, 1), or the number of epochs is below 1.

    Example:
        >>> step_decay("step(0.5, 100)")
        (0.5, 100)
    """
    call = parse(schedule)
    signature = inspect.signature(lambda factor, epochs: None)
    try:
        arguments = signature.bind(*call.positional, **call.named).arguments
        factor, epochs = arguments["factor"], arguments["epochs"]
        valid = call.name == "step" and 0 < factor < 1 and isinstance(epochs, int) and epochs >= 1
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(
            f"schedule is 'constant' or 'cosine', got {schedule!r}; or 'step(0.5, 100)', a factor in (0, 1) and "
            "the number of epochs after which the rate is multiplied by it"
        )
    return float(factor), epochs


@dataclass(frozen=True)
class Run:
    """One training run. Equal runs compute equal numbers on the same machine.

    Args:
        workload: a shipped workload's name, an importable module, or a path that ends in ``.py``.
        options: the workload's own fields, by name.
        tasks: the tasks trained; empty for all of them. One name is the single-task baseline.
        method: a balancing method, written as its constructor: ``"CAGrad(c=0.4)"``.
        surface: where gradients are balanced: ``"features"`` (Fork) or ``"parameters"`` (Balancer). A line search and a
            multi-task optimizer combine the tasks by themselves: ``"parameters"`` is an error with them, unless the workload's
            protocol names it.
        door: further options of the Fork or Balancer, by name (``every``, ``scale``, ``heads``).
        optimizer: a class of torch.optim or paretorch.optim, by name.
        optimizer_options: its arguments, by name (``lr`` among them).
        epochs: passes over the training data.
        batch_size: samples per step.
        seed: decides initial weights, data order and all other random numbers.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or one of several by its index: ``"cuda:1"``.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast).
        deterministic: whether torch uses deterministic algorithms only (``torch.use_deterministic_algorithms``).
        test: whether the test set is evaluated after training; False in the trials of a tuning.
        clip: the norm to which the gradient of all parameters is clipped before a step; a multi-task optimizer clips the
            gradient of each task. None: no clipping.
        schedule: of the learning rate, step by step: ``"constant"``, ``"cosine"``, to zero along half a period, or
            ``"step(0.5, 100)"``, multiplied by 0.5 every 100 epochs.
        warmup: the share of all steps, in [0, 1), over which the learning rate increases linearly from zero.
        front: an algorithm that trains a set of models, written as its constructor: ``"MT2O(adapt='hypervolume')"``; empty:
            one model is trained with ``method``.
        front_options: further options of a front, by name: ``models``, ``preferences``, ``margin``, ``starts``,
            ``execution``, ``reference``.
        keep: the weights whose scores are reported, and that are exported: ``"last"``, of the last epoch, or ``"best"``, of the
            best epoch on validation data, see ``paretorch.training.record.kept_epoch``.
        stationarity: number of training samples of each stream on which the Pareto stationarity residual of the trained model is
            computed, see :func:`paretorch.pareto.residual`; 0: it is not. It costs one backward per task and batch, and is a
            fact of the result.
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
    keep: str = "last"
    stationarity: int = 0

    def __post_init__(self) -> None:
        if self.surface not in ("features", "parameters"):
            raise ValueError(f"surface is 'features' or 'parameters', got {self.surface!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is 'float32' or 'bfloat16', got {self.precision!r}")
        if self.keep not in KEPT:
            raise ValueError(f"keep is 'last' or 'best', got {self.keep!r}")
        if self.schedule not in SCHEDULES:
            step_decay(self.schedule)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, 0 <= warmup < 1, got {self.warmup}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip is a finite norm above 0, or None for no clipping, got {self.clip}")
        if self.front_options and not self.front:
            raise ValueError(
                f"options of a front ({', '.join(self.front_options)}) without a front: name an algorithm in `front`, such as "
                "'MT2O()'"
            )
        if self.stationarity < 0:
            raise ValueError(f"stationarity is a number of samples, at least 0, got {self.stationarity}")
        if self.stationarity and self.front:
            raise ValueError("stationarity is of one trained model; for the models of a front, call Front.residuals")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is an integer of 64 bits, from -2^63 to 2^63 - 1, got {self.seed}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return copy.deepcopy(self._values())

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: a value has another type or is not allowed; the message names it.
        """
        run: Run = typed(values, cls)
        return run

    @property
    def key(self) -> str:
        """A short digest of the run's values: equal for equal runs."""
        text = json.dumps(self._values(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _values(self) -> dict[str, Any]:
        """The run as a JSON object, which shares its mappings."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)} | {
            "tasks": list(self.tasks)
        }
        return {name: value for name, value in values.items() if name not in ADDED or value != ADDED[name]}


def decoded_run(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run in a file that :func:`~paretorch.storage.json_files.to_json` converted.

    Raises:
        ValueError: a task is no text.
    """
    return {**from_json(values), "tasks": [name_from_json(task) for task in values.get("tasks", ())]}
