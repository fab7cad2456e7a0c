"""The base class of workloads, a model of one encoder and a head per task, and the known truth of a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paretorch.device_memory import total_memory
from paretorch.metrics import Metric
from paretorch.task_names import check_task_name
from paretorch.workloads.streams import Plain, Splits


class DataWarning(UserWarning):
    """The data can be trained on, and may not be what the user expects."""


class MultiTaskModel(nn.Module):
    """An encoder whose features are the input of every task's head.

    Args:
        encoder: inputs -> features, a tensor or any nesting of tensors.
        heads: features -> output, by task.

    Raises:
        ValueError: a task's name is not possible in an nn.ModuleDict.

    Example:
        >>> import torch
        >>> model = MultiTaskModel(nn.Linear(3, 2), {"a": nn.Linear(2, 1), "b": nn.Linear(2, 5)})
        >>> {task: tuple(output.shape) for task, output in model(torch.zeros(4, 3)).items()}
        {'a': (4, 1), 'b': (4, 5)}
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        check_head_names(heads)
        self.encoder = encoder
        self.heads = nn.ModuleDict(dict(heads))

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Every task's output."""
        features = self.encoder(inputs)
        return {task: head(features) for task, head in self.heads.items()}


def check_head_names(tasks: Iterable[str]) -> None:
    """Checks that each task's name can be the name of a head in an nn.ModuleDict.

    Raises:
        ValueError: a name is empty or not one line, contains a dot, or is an attribute of nn.ModuleDict.

    Example:
        >>> check_head_names(["left", "type"])
        Traceback (most recent call last):
        ...
        ValueError: no task can be called 'type': nn.ModuleDict, which stores the heads, has an attribute of this name. ...
    """
    for task in tasks:
        if task != "":  # the message below names a cure
            check_task_name(task)
        if not task or "." in task:
            reason = "nn.ModuleDict, which stores the heads, requires names that are not empty and contain no dot"
        elif task in ATTRIBUTES:
            reason = "nn.ModuleDict, which stores the heads, has an attribute of this name"
        else:
            continue
        other = task.replace(".", "_") or "task"
        example = other + "_" * (other in ATTRIBUTES)
        raise ValueError(
            f"no task can be called {task!r}: {reason}. Rename it, for example to {example!r}; if tasks are columns of a "
            "table, rename the column in its first line"
        )


ATTRIBUTES = frozenset(dir(nn.ModuleDict()))


def check_least(name: str, options: object, least: Mapping[str, int], unit: str = "") -> None:
    """Checks that options of a workload are None or large enough.

    Args:
        name: of the workload.
        options: an object with the options as attributes.
        least: the smallest value by option.
        unit: of the values, for the message.

    Raises:
        ValueError: an option is smaller.
    """
    for option, bound in least.items():
        value = getattr(options, option)
        if value is not None and value < bound:
            raise ValueError(f"{name}: {option} is at least {bound}{' ' * bool(unit)}{unit}, got {value}")


def check_fits(name: str, samples: int, size: int, options: str) -> None:
    """Checks that generated data fit into the memory of this machine.

    Args:
        name: of the workload.
        samples: number of samples.
        size: bytes of a sample, at least.
        options: those that decide the size, for the message.

    Raises:
        ValueError: they do not fit.
    """
    total = total_memory(torch.device("cpu"))
    if total is not None and samples * size > total:
        raise ValueError(
            f"{name}: {samples:,} samples of {size:,} bytes take {samples * size / 2**30:,.0f} GiB, and this machine has "
            f"{total / 2**30:,.0f} GiB: reduce {options}"
        )


@dataclass(frozen=True)
class Truth:
    """What is known about a problem without training.

    Args:
        front: (n, T) points of the Pareto front, losses in the order of the workload's tasks.
        reference: (T,) reference point of the hypervolume.
        hypervolume: the largest hypervolume of any set of models.
    """

    front: Tensor
    reference: tuple[float, ...]
    hypervolume: float


class Workload(ABC):
    """A multi-task problem. Subclasses are frozen dataclasses whose fields are plain values, the workload's options.

    Everything but :meth:`model` is a pure function of the fields. The initial weights are drawn from torch's global generator,
    which a run seeds. All heads are built, and those of tasks that a run does not train are removed afterwards, so that runs of
    one seed start from the same weights for any choice of tasks.
    """

    title: ClassVar[str] = ""  # one line for `paretorch list workloads`
    files: ClassVar[str] = ""  # the files it reads, their layout below its root, where they are published
    protocol: ClassVar[Mapping[str, Plain]] = {}  # fields of a Run as published: optimizer, epochs, ...

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """(T,) names of the tasks; their order is the order of all results."""

    @abstractmethod
    def data(self) -> Splits:
        """The data, on the host."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with random weights: a module with ``encoder`` and ``heads``, an ``nn.ModuleDict`` by task.

        Features pass from the encoder to the heads through a :class:`~paretorch.Fork`, so no layer of the encoder belongs to
        one task alone.
        """

    @abstractmethod
    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Scalar losses by task, each a mean over the labelled samples.

        Args:
            outputs: the heads' outputs, (B, ...), of the tasks in this step.
            targets: the targets, (B, ...), by task, at least of the tasks of ``outputs``.

        Returns:
            One scalar per task; a task without labels in this batch is omitted.
        """

    @abstractmethod
    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """New metrics by task."""

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """The number of elements over which the loss of ``task`` is a mean; by default all ``size`` samples.

        Workloads with missing labels override it: the loss over a split is the mean of the batches' losses, weighted by this
        number. A tensor without dimensions stays on its device until the end of the split.
        """
        del task, target
        return size

    def require(self) -> None:  # noqa: B027 - most workloads read no files
        """Checks that the data exist, without reading them; a study calls it before its first run.

        Raises:
            FileNotFoundError: they are missing; the message has the expected layout.
        """

    def data_files(self) -> Sequence[str | Path]:
        """The files whose content belongs to the identity of a run, such as a table; none by default.

        A run records the SHA-256 of their content, and is not resumed with another one. Every command reads them whole.
        """
        return ()

    @property
    def truth(self) -> Truth | None:
        """What is known about the problem; None if nothing is known."""
        return None
