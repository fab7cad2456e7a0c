"""The copy of a model on which everything is measured, its losses and its features."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretorch.core.checks import called, is_bare_zero
from paretorch.core.fork.fork import Fork
from paretorch.core.fork.pausing import forks_in, paused_forks
from paretorch.core.gradients.graph import task_gradients, task_graph
from paretorch.task_names import check_task_name


class NonFiniteLossError(ValueError):
    """A loss is inf or nan."""


LossesOf = Callable[[Any, Any], Mapping[str, Tensor | None]]
ENCODER = "encoder"


class BatchGradients(NamedTuple):
    """The losses of a batch and their gradients.

    Args:
        losses: values by task, of the tasks that are there.
        rows: by task, its gradient for each trainable parameter; None where it does not reach one.
        features: by task, its gradient for each tensor of the features; empty where these are unknown.
        own_inputs: whether no part of the graph but the parameters is reached by several tasks.
        samples: number of samples of the batch; None where it is unknown.
    """

    losses: dict[str, float]
    rows: dict[str, list[Tensor | None]]
    features: dict[str, list[Tensor | None]]
    feature_tensors: list[Tensor]
    own_inputs: bool
    samples: int | None


class Subject:
    """A copy of a model in training mode, with its losses. The model itself is not changed.

    Args:
        model: that is diagnosed.
        losses_of: ``losses_of(model, batch)``, the losses by task.
        features: name of the submodule whose output (of a Fork: whose input) the heads share; None: the model's only Fork, else
            ``"encoder"`` where the model has ``encoder`` and ``heads``, else unknown.

    Raises:
        ValueError: the model has no parameter, cannot be copied, or has no such submodule.
    """

    def __init__(self, model: nn.Module, losses_of: LossesOf, features: str | None) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: expected a torch.nn.Module, got a {type(model).__name__}")
        if not callable(losses_of):
            raise ValueError("losses_of: expected a function losses_of(model, batch) that returns the losses by task")
        self.original, self.losses_of = model, losses_of
        try:
            self.model = copy.deepcopy(model)
        except Exception as error:
            raise ValueError(
                f"the model cannot be copied, and a diagnosis trains a copy of it: copy.deepcopy(model) fails with {error}"
            ) from error
        if not self.model.training:
            self.model.train()
        self.names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.frozen = [name for name, parameter in self.model.named_parameters() if not parameter.requires_grad]
        if not self.parameters and not self.frozen:
            raise ValueError("the model has no parameter: give the module that contains the encoder and the heads")
        self.device = (self.parameters or list(self.model.parameters()))[0].device
        self.features = _features_name(self.model, features)
        self.zeros: set[str] = set()  # tasks whose loss was a zero without a graph in a batch
        self._outputs: list[Tensor] = []

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """A context in which features are recorded, and Forks within the model do not balance."""
        with ExitStack() as stack:
            if self.features is not None:
                module = self.model.get_submodule(self.features)
                hook = (
                    module.register_forward_pre_hook(self._record_input, with_kwargs=True)
                    if isinstance(module, Fork)
                    else module.register_forward_hook(self._record_output)
                )
                stack.callback(hook.remove)
            stack.enter_context(paused_forks(self.model))
            yield

    def _record_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        self._record(output)

    def _record_input(self, module: nn.Module, positional: Any, named: Any) -> None:
        del module
        self._record((positional, named))

    def _record(self, features: Any) -> None:
        leaves = [leaf for leaf in tree_leaves(features) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        self._outputs += list({id(leaf): leaf for leaf in leaves}.values())

    @property
    def place(self) -> str:
        """The features in words."""
        is_fork = self.features is not None and isinstance(self.model.get_submodule(self.features), Fork)
        return f"the {'input' if is_fork else 'output'} of {self.features!r}"

    @property
    def encoder(self) -> str | None:
        """The name of the submodule whose output is the features; None where it is unknown."""
        name = self.features
        return None if name is None or isinstance(self.model.get_submodule(name), Fork) else name

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The losses of the tasks that are in a batch, checked; a zero without a graph is one without labels.

        Raises:
            ValueError: they are not finite scalars by task.
        """
        self._outputs = []
        found: Any = called(self.losses_of, self.model, batch)
        if not isinstance(found, Mapping):
            raise ValueError(f"losses_of: expected a dict of a scalar loss by task, got a {type(found).__name__}")
        losses = {task: loss for task, loss in found.items() if loss is not None and not is_bare_zero(loss)}
        self.zeros.update(task for task, loss in found.items() if loss is not None and task not in losses)
        for task, loss in losses.items():
            check_task_name(task)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(f"losses_of: expected a scalar tensor for task {task!r}, got {got}: take its mean")
            if not bool(torch.isfinite(loss)):
                raise NonFiniteLossError(
                    f"the loss of task {task!r} is {float(loss.detach())}: check its targets and the range of its inputs (a "
                    "logarithm of zero, a division by zero, a mean over no label) before anything else"
                )
        return {task: loss.reshape(()) for task, loss in losses.items()}

    def gradients(self, batch: Any) -> BatchGradients:
        """Losses and gradients of every task, from one forward and a backward for each task."""
        losses = self.losses(batch)
        outputs, self._outputs = self._outputs, []
        if self.features is not None and not outputs and losses:
            self.check_uses_copy(batch)
            raise ValueError(
                f"features={self.features!r}: losses_of does not call this submodule of the model it is given"
            )
        tensors = [output for output in outputs if output.requires_grad]
        tasks = [task for task, loss in losses.items() if loss.requires_grad]
        ends = [*self.parameters, *tensors]
        rows: dict[str, list[Tensor | None]] = {task: [None] * len(ends) for task in losses}
        graph = task_graph([[losses[task]] for task in tasks])
        for task in tasks:
            if ends:
                rows[task] = task_gradients([losses[task]], [None], ends, retain_graph=True, dense=len(self.parameters))
        count = len(self.parameters)
        common = any(mask & (mask - 1) for (node, _), mask in graph.task_masks.items() if not hasattr(node, "variable"))
        return BatchGradients(
            {task: float(loss.detach()) for task, loss in losses.items()},
            {task: row[:count] for task, row in rows.items()},
            {task: row[count:] for task, row in rows.items()},
            [tensor.detach() for tensor in tensors],
            not common and not graph.opaque,
            _samples(batch, outputs),
        )

    def check_uses_copy(self, batch: Any) -> None:
        """Checks that the losses do not depend on parameters of the original model, which ``losses_of`` must not use.

        Raises:
            ValueError: they do.
        """
        ours = {id(parameter) for parameter in self.original.parameters()}
        losses = self.losses(batch)
        graph = task_graph([[loss] for loss in losses.values() if loss.requires_grad])
        if any(id(leaf) in ours for leaf in graph.leaves):
            raise ValueError(
                "losses_of(model, batch) computes the losses with another object than the model it is given: use its first "
                "argument, which is a copy, so that your model is not changed"
            )

    def foreign(self, batch: Any) -> int:
        """Number of tensors that losses depend on and that require grad, but are not parameters of the model."""
        ours = {id(parameter) for parameter in self.model.parameters()}
        losses = self.losses(batch)
        graph = task_graph([[loss] for loss in losses.values() if loss.requires_grad])
        return sum(isinstance(leaf, nn.Parameter) and id(leaf) not in ours for leaf in graph.leaves)


def _features_name(model: nn.Module, name: str | None) -> str | None:
    if name is None:
        forks = list(forks_in(model))
        if len(forks) == 1:
            return forks[0] or None
        has_parts = isinstance(getattr(model, ENCODER, None), nn.Module) and hasattr(model, "heads")
        return ENCODER if has_parts else None
    modules = dict(model.named_modules())
    if name not in modules or not name:
        known = ", ".join(repr(other) for other, _ in list(model.named_children())[:8])
        raise ValueError(
            f"features names the submodule whose output the heads share, got {name!r}; submodules of the model are {known}"
        )
    return name


def _samples(batch: Any, outputs: list[Tensor]) -> int | None:
    """The common leading dimension of the features, or of the batch's tensors."""
    for tensors in (outputs, [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]):
        sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
        if len(sizes) == 1 and 0 not in sizes:
            return sizes.pop()
    return None


def group_names(names: list[str], most: int = 12) -> dict[str, list[int]]:
    """Parameters by layer: the modules at the first level at which their paths differ; neighbours are joined above ``most``.

    Parameters of a module that contains other layers are layers of their own, by their names.

    Example:
        >>> group_names(["net.0.weight", "net.0.bias", "net.2.weight"])
        {'net.0': [0, 1], 'net.2': [2]}
        >>> group_names(["net.position", "net.0.weight", "net.0.bias"])
        {'net.position': [0], 'net.0': [1, 2]}
    """
    paths = [name.split(".")[:-1] for name in names]
    depth = 0
    while paths and all(len(path) > depth for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    groups: dict[str, list[int]] = {}
    for index, (path, name) in enumerate(zip(paths, names, strict=True)):
        layer = ".".join(path[: depth + 1])
        contains_layers = any(other[: len(path)] == path and len(other) > len(path) for other in paths)
        groups.setdefault(layer if layer and not (contains_layers and len(path) <= depth) else name, []).append(index)
    if len(groups) <= most:
        return groups
    keys = list(groups)
    size = math.ceil(len(keys) / most)
    parts = [keys[start : start + size] for start in range(0, len(keys), size)]
    return {
        part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}": [index for key in part for index in groups[key]]
        for part in parts
    }
