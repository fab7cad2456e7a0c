"""Insertion of a Fork into a model by the names of its submodules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from paretorch.core.checks import nearest
from paretorch.core.contract import Method
from paretorch.core.fork.fork import Fork
from paretorch.core.method.argument import check_method
from paretorch.core.restoring import RestoredOnError


def fork_at(
    model: nn.Module, encoder: str, heads: Mapping[str, str], method: Method[Any] | None = None, **options: Any
) -> InsertedFork:
    """A Fork between two parts of a model, by their names; the model's code is unchanged.

    The encoder's output is forked, and each head receives its own branch wherever its arguments contain that output. Where the
    model changes the features in between (flattens or pools them), the inputs that the heads have in common are forked instead.

    Args:
        model: any module; the fork becomes its submodule ``fork``, so that its state is saved and moved with it.
        encoder: name of the submodule whose output is shared, as in ``model.get_submodule``.
        heads: name of the head's submodule by task.
        method: the balancing method; None: the recommended one.
        **options: further arguments of :class:`~paretorch.Fork`.

    Returns:
        the fork; ``fork.remove()`` removes it.

    Raises:
        ValueError: on names that the model does not have, ``heads`` that are no dict, and a ``method`` that is none.
        RuntimeError: in a forward, where a head is given neither the encoder's output nor what the other heads were given.

    Example:
        >>> import torch, paretorch as pt
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body, self.left, self.right = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(3, 1)
        ...     def forward(self, x):
        ...         z = self.body(x)
        ...         return self.left(z), self.right(z)
        >>> net = Net()
        >>> fork = pt.fork_at(net, "body", heads={"left": "left", "right": "right"}, method=pt.MGDA())
        >>> sum(out.square().mean() for out in net(torch.ones(2, 4))).backward()
        >>> fork.balance.tasks
        ('left', 'right')
        >>> fork.remove()
    """
    if method is not None:
        check_method(method)
    if not isinstance(heads, Mapping) or not heads:
        raise ValueError(
            f"fork_at: heads is a dict from the name of a task to that of its submodule, got {heads!r}: write "
            "heads={'seg': 'seg_head', 'depth': 'depth_head'}"
        )
    names = dict(model.named_modules())
    for name in (encoder, *heads.values()):
        if name not in names or not name:
            raise ValueError(f"the model has no submodule {name!r}; it has {nearest(name, [n for n in names if n])}")
    if hasattr(model, "fork"):
        raise ValueError("the model has an attribute 'fork' already: remove an earlier fork with model.fork.remove()")
    fork = InsertedFork(method, heads, **options)
    with RestoredOnError([model]):
        for task, name in heads.items():
            hook = names[name].register_forward_pre_hook(_UseBranch(fork, task), with_kwargs=True)
            fork.undo.append(hook.remove)
        fork.undo.append(names[encoder].register_forward_hook(fork.begin).remove)
        fork.undo.append(_RemoveSubmodule(model))
        model.add_module("fork", fork)
    return fork


class HeadInputs:
    """The features of the current forward, and each task's branch of them. Copies are empty."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []
        self.branches: dict[str, list[Tensor]] = {}

    def __reduce__(self) -> tuple[type[HeadInputs], tuple[()]]:
        return HeadInputs, ()

    def clear(self) -> None:
        """Release the tensors."""
        self.features, self.branches = [], {}


class InsertedFork(Fork):
    """A Fork that is called by hooks. Made by :func:`fork_at`."""

    def __init__(self, method: Method[Any] | None, heads: Mapping[str, str], **options: Any) -> None:
        super().__init__(method, tuple(heads), **options)
        self.undo: list[Callable[[], None]] = []
        self._inputs = HeadInputs()
        self._step.on_backward = self._inputs.clear

    def begin(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Forward hook of the encoder: its output begins a new step."""
        self._inputs.clear()
        self._inputs.features = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]

    def with_branch(self, task: str, arguments: Any) -> Any:
        """The arguments of a head, with its own branch in place of the features."""
        inputs = self._inputs
        given = [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor)]
        if not inputs.branches:
            if not _overlap(given, inputs.features):  # the model changes the features: fork the head's inputs
                inputs.features = [leaf for leaf in given if leaf.is_floating_point()]
            inputs.branches = self(inputs.features)
        if not _overlap(given, inputs.features):
            raise RuntimeError(
                f"the head of task {task!r} is given neither the encoder's output nor what the other heads were given: name the "
                "module whose output all heads receive unchanged, or call paretorch.Fork in the model's forward"
            )
        own = {id(leaf): branch for leaf, branch in zip(inputs.features, inputs.branches[task], strict=True)}
        return tree_map_only(Tensor, lambda leaf: own.get(id(leaf), leaf), arguments)

    def remove(self) -> None:
        """Remove the Fork from the model; the model is as before."""
        for step in self.undo:
            step()
        self.undo = []


class _UseBranch:
    """Forward pre-hook of a head: an object, not a closure, so that a deep copy of the model uses its own Fork."""

    def __init__(self, fork: InsertedFork, task: str) -> None:
        self.fork, self.task = fork, task

    def __call__(self, module: nn.Module, arguments: Any, keywords: Any) -> Any:
        return self.fork.with_branch(self.task, (arguments, keywords))


class _RemoveSubmodule:
    """Removes the Fork from the model's submodules."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self) -> None:
        del self.model.fork


def _overlap(given: list[Tensor], features: list[Tensor]) -> bool:
    known = {id(leaf) for leaf in features}
    return any(id(leaf) in known for leaf in given)
