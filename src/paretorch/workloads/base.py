"""The protocol of a workload: data, a model of one encoder and a head per task, losses, metrics, known truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from paretorch.workloads.metrics import Metric
from paretorch.workloads.streams import Plain, Splits


class MultiTaskModel(nn.Module):
    """An encoder whose features every task's head reads.

    Args:
        encoder: inputs -> features, a tensor or any nesting of tensors.
        heads: features -> output, by task.

    Raises:
        ValueError: a task has a name that an nn.ModuleDict refuses: empty, with a dot, or one of its own attributes.

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
    """Checks that heads can be called as the tasks are: an nn.ModuleDict keeps them under these names.

    Raises:
        ValueError: a name is empty, has a dot, or is that of an attribute of nn.ModuleDict.

    Example:
        >>> check_head_names(["left", "type"])
        Traceback (most recent call last):
        ...
        ValueError: no task can be called 'type': an nn.ModuleDict, which keeps the heads, has an attribute of this name. ...
    """
    for task in tasks:
        if not isinstance(task, str) or any(letter in "\n\0" or "\ud800" <= letter <= "\udfff" for letter in task):
            raise ValueError(f"a task name is a non-empty string of one line, without null characters, got {task!r}")
        if not task or "." in task:
            reason = "an nn.ModuleDict, which keeps the heads, takes no name that is empty or has a dot"
        elif task in ATTRIBUTES:
            reason = "an nn.ModuleDict, which keeps the heads, has an attribute of this name"
        else:
            continue
        other = task.replace(".", "_") or "task"
        raise ValueError(
            f"no task can be called {task!r}: {reason}. Rename it, for example to {other + '_' * (other in ATTRIBUTES)!r}; where "
            "tasks are columns of a table, rename the column in its first line"
        )


ATTRIBUTES = frozenset(dir(nn.ModuleDict()))


@dataclass(frozen=True)
class Truth:
    """What is known about a problem before anything is trained.

    Args:
        front: (n, T) points of the Pareto front, losses in the order of the workload's tasks.
        reference: (T,) the point from which hypervolume is measured.
        hypervolume: the largest that a set of models can reach.
    """

    front: Tensor
    reference: tuple[float, ...]
    hypervolume: float


class Workload(ABC):
    """A multi-task problem. Subclasses are frozen dataclasses whose fields are plain values, the workload's options.

    Everything but :meth:`model` is a pure function of the fields; the initial weights come from torch's global
    generator, which a run seeds. All heads are built, and those of tasks that a run leaves out are dropped afterwards,
    so that runs of one seed start from the same weights whatever tasks they train.
    """

    title: ClassVar[str] = ""  # one line for `paretorch list workloads`
    files: ClassVar[str] = ""  # which files it reads, how they lie below its root, where they are published
    protocol: ClassVar[Mapping[str, Plain]] = {}  # fields of a Run as published: optimizer, epochs, ...

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """(T,) names of the tasks, in the order that everything else follows."""

    @abstractmethod
    def data(self) -> Splits:
        """The data, on the host."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with random weights: a module with ``encoder`` and ``heads``, an ``nn.ModuleDict`` by task.

        Features go from the encoder to the heads through a :class:`~paretorch.Fork`, so the encoder computes nothing
        that belongs to one task alone.
        """

    @abstractmethod
    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Scalar losses by task, each a mean over the labelled samples.

        Args:
            outputs: the heads' outputs, (B, ...), of the tasks in this step.
            targets: the targets, (B, ...), by task; holds at least the tasks of ``outputs``.

        Returns:
            One scalar per task; a task without a label in this batch is left out.
        """

    @abstractmethod
    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Fresh metrics by task."""

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """How many elements the loss of ``task`` is a mean of; the default says all ``size`` samples.

        Overridden where labels are missing: losses over a split are means weighted by this number. A tensor of no
        dimensions is kept on its device until the split is through.
        """
        del task, target
        return size

    def require(self) -> None:  # noqa: B027 - most need nothing
        """Fails where the data are not there, without reading them: a study asks before it starts its runs.

        Raises:
            FileNotFoundError: says what was looked for, and how it must lie.
        """

    @property
    def truth(self) -> Truth | None:
        """What is known about the problem; None where nothing is."""
        return None
