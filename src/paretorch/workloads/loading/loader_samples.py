"""Conversion of what a data loader yields to samples: keys, tensors, missing labels, batches of a given size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from paretorch.workloads.streams import Samples

MISSING_CLASS = -1  # the label of a sample without one, where labels are whole numbers; nan where they are not

ToBatch = Callable[[Any], tuple[Any, Mapping[str, Any]]]


@dataclass(frozen=True)
class BatchConversion:
    """Converts a batch of a data loader to samples.

    Args:
        name: of the stream, for messages.
        tasks: names of the tasks.
        inputs: the key of the inputs, or several, which give a dict; None: all keys that are not tasks.
        to_batch: batch -> inputs, targets by task; None: the batch is a dict, ``(inputs, {task: target})``, or the inputs
            followed by the target of each task.
        classes: for tasks whose kind of label is known: whether labels are whole numbers.
    """

    name: str
    tasks: tuple[str, ...]
    inputs: str | tuple[str, ...] | None
    to_batch: ToBatch | None
    classes: Mapping[str, bool]

    def __call__(self, batch: Any) -> Samples:
        """The samples of a batch; a task without any label, whose kind of label is unknown, has no target.

        Raises:
            ValueError: keys are missing, a value is no tensor, or the numbers of samples differ; the message names key or task.
        """
        inputs, targets = self._parts(batch)
        if missing := [task for task in self.tasks if task not in targets]:
            raise ValueError(
                f"{self.name}: a batch has no target of task {missing[0]!r}; its keys are {_listed(targets)}. Name the tasks as "
                "the keys of the data, or give to_batch=, a function from a batch to (inputs, {task: target})"
            )
        if isinstance(inputs, Mapping):
            inputs = dict(inputs)  # the mappings of some libraries are no dicts, whose tensors would not be found
        inputs = tree_map(_tensor_if_array, inputs)
        found = {task: self._target(task, targets[task]) for task in self.tasks}
        labels = {task: target for task, target in found.items() if target is not None}
        return Samples(inputs, labels, self._size(inputs, labels))

    def _parts(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        if self.to_batch is not None:
            parts = self.to_batch(batch)
            if not (isinstance(parts, tuple | list) and len(parts) == 2 and isinstance(parts[1], Mapping)):
                raise ValueError(
                    f"{self.name}: to_batch(batch) returns (inputs, targets), with a dict of targets by task; got {_kind(parts)}"
                )
            return parts[0], parts[1]
        if isinstance(batch, Mapping):
            return self._inputs_of(batch), batch
        if isinstance(batch, tuple | list):
            if len(batch) == 2 and isinstance(batch[1], Mapping):
                return batch[0], batch[1]
            if len(batch) == 1 + len(self.tasks):
                return batch[0], dict(zip(self.tasks, batch[1:], strict=True))
        count = f" of {len(batch)} values" if isinstance(batch, tuple | list) else ""
        raise ValueError(
            f"{self.name}: expected batches that are a dict with the keys {', '.join(map(repr, self.tasks))} and the inputs, "
            f"(inputs, {{task: target}}), or inputs followed by {len(self.tasks)} targets; got {_kind(batch)}{count}. Give "
            "to_batch=, a function from a batch to (inputs, {task: target})"
        )

    def _inputs_of(self, batch: Mapping[str, Any]) -> Any:
        if isinstance(self.inputs, str):
            named: tuple[str, ...] = (self.inputs,)
        else:
            named = tuple(key for key in batch if key not in self.tasks) if self.inputs is None else self.inputs
        if missing := [key for key in named if key not in batch]:
            raise ValueError(
                f"{self.name}: a batch has no key {missing[0]!r}, which inputs= names; its keys are {_listed(batch)}"
            )
        if not named:
            raise ValueError(
                f"{self.name}: a batch has the keys of tasks only, {_listed(batch)}, and no inputs: leave a task out, or give "
                "to_batch=, a function from a batch to (inputs, {task: target})"
            )
        is_dict = isinstance(self.inputs, tuple) or (self.inputs is None and len(named) > 1)
        return {key: batch[key] for key in named} if is_dict else batch[named[0]]

    def _target(self, task: str, value: Any) -> Any:
        """The target with missing labels filled in; None without any label, if the kind of label is unknown."""
        if value is None:
            return None
        if isinstance(value, list):
            value = self._filled(task, value)
            if value is None:
                return None
        value = tree_map(_tensor_if_array, value)
        if isinstance(value, Tensor) and value.is_floating_point() and self.classes.get(task, False):
            value = torch.where(value.isnan(), MISSING_CLASS, value).long()
        return value

    def _filled(self, task: str, rows: Sequence[Any]) -> Tensor | None:
        """The labels of a batch as a tensor, with nan or -1 for those that are None."""
        if all(row is None for row in rows):
            kind = self.classes.get(task)
            return None if kind is None else torch.full((len(rows),), MISSING_CLASS if kind else torch.nan)
        try:
            known = {place: torch.as_tensor(row) for place, row in enumerate(rows) if row is not None}
            dtype = reduce(torch.promote_types, {each.dtype for each in known.values()})
            if dtype in (torch.bool, torch.uint8):
                dtype = torch.int64  # which has room for -1
            like = next(iter(known.values()))
            filled = torch.full(
                (len(rows), *like.shape), torch.nan if dtype.is_floating_point else MISSING_CLASS, dtype=dtype
            )
            for place, label in known.items():
                if label.shape != like.shape:
                    raise TypeError
                filled[place] = label
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"{self.name}, task {task!r}: expected labels of one shape that are numbers or None, got "
                f"{_listed(dict.fromkeys(_kind(row) for row in rows))}. {_TENSORS}"
            ) from None
        return filled

    def _size(self, inputs: Any, labels: Mapping[str, Any]) -> int:
        """The number of samples, after the check that everything is a tensor with a row for each."""
        size: int | None = None
        for where, value in (("the inputs", inputs), *((f"task {task!r}", target) for task, target in labels.items())):
            leaves = tree_flatten(value)[0]
            for leaf in leaves:
                if not isinstance(leaf, Tensor):
                    key = _key_of(value, leaf)
                    raise ValueError(
                        f"{self.name}: expected tensors, got {_kind(leaf)} in {where}{key}. {_TENSORS}"
                        + (", or name the keys of the inputs: inputs=('image',)" if where == "the inputs" else "")
                    )
                if not leaf.ndim or size not in (None, len(leaf)):
                    rows = "no rows" if not leaf.ndim else f"{len(leaf)} rows"
                    raise ValueError(
                        f"{self.name}: {where} {'have' if where == 'the inputs' else 'has'} {rows} where others have "
                        f"{'one for each sample' if size is None else size}. Every tensor of a batch has a row for each sample"
                    )
                size = len(leaf)
        if not size:
            raise ValueError(
                f"{self.name}: a batch has no sample. Leave empty batches out, in collate_fn= or in the data"
            )
        return size


_TENSORS = "Give a collate_fn=, a transform of the data set, or to_batch=, that returns tensors"


def collate(rows: Sequence[Any]) -> Any:
    """Joins samples to a batch: tensors are stacked, and a value that is None in a sample gives a list, not an error.

    Unlike torch's default, numbers with a fraction have torch's default dtype, and lists of numbers become tensors.

    Args:
        rows: B samples: dicts, tuples, tensors, arrays or numbers.

    Example:
        >>> collate([{"x": [1.0, 2.0], "a": 1}, {"x": [3.0, 4.0], "a": None}])
        {'x': tensor([[1., 2.],
                [3., 4.]]), 'a': [1, None]}
    """
    first = rows[0]
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for row in rows for key in row)
        return {key: collate([row.get(key) for row in rows]) for key in keys}
    if isinstance(first, tuple):
        return tuple(collate(column) for column in zip(*rows, strict=True))
    try:
        tensors = [torch.as_tensor(row) for row in rows]
        dtype = reduce(torch.promote_types, {each.dtype for each in tensors})
        return torch.stack([each.to(dtype) for each in tensors])
    except (TypeError, ValueError, RuntimeError):
        return list(
            rows
        )  # None, text, images, or numbers of different shapes: whether that is an error, the tasks decide


def rebatched(samples: Iterator[Samples], size: int, keep_last: bool, name: str) -> Iterator[Samples]:
    """Samples in batches of ``size``.

    Args:
        samples: in batches of any sizes.
        size: B.
        keep_last: whether an incomplete last batch is kept; if it is the only one, it always is.
        name: of the stream, for messages.
    """
    waiting: list[Samples] = []
    count, is_first = 0, True
    for part in samples:
        if not waiting and part.size == size:  # without a copy
            yield part
            is_first = False
            continue
        waiting.append(part)
        count += part.size
        while count >= size:
            joined = _joined(waiting, name)
            yield _rows(joined, 0, size)
            count, is_first = count - size, False
            waiting = [_rows(joined, size, joined.size)] if count else []
    if waiting and (keep_last or is_first):
        yield _joined(waiting, name)


def _rows(samples: Samples, start: int, stop: int) -> Samples:
    inputs, targets = tree_map(lambda x: x[start:stop], (samples.inputs, dict(samples.targets)))
    return Samples(inputs, targets, stop - start)


def _joined(parts: Sequence[Samples], name: str) -> Samples:
    if len(parts) == 1:
        return parts[0]
    labels: dict[str, Any] = {}
    for task in dict.fromkeys(task for part in parts for task in part.targets):
        like = next(part.targets[task] for part in parts if task in part.targets)
        found = [part.targets[task] if task in part.targets else _unlabelled(like, part.size) for part in parts]
        labels[task] = _concatenated(found, name)
    return Samples(_concatenated([part.inputs for part in parts], name), labels, sum(part.size for part in parts))


def _unlabelled(like: Any, size: int) -> Any:
    """A target of ``size`` samples without labels."""
    return tree_map(
        lambda x: x.new_full((size, *x.shape[1:]), torch.nan if x.is_floating_point() else MISSING_CLASS), like
    )


def _concatenated(trees: Sequence[Any], name: str) -> Any:
    try:
        return tree_map(lambda *leaves: torch.cat(leaves), *trees)
    except (RuntimeError, ValueError):
        raise ValueError(
            f"{name}: its batches have different shapes, so they cannot be joined to batches of another size: use the batch size "
            "of the loader (--batch-size), or a collate_fn= that gives all batches the same shape"
        ) from None


def _tensor_if_array(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        return torch.as_tensor(value)
    return value


def _key_of(tree: Any, leaf: Any) -> str:
    """The key of a dict whose value contains a leaf, for a message."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if any(each is leaf for each in tree_flatten(value)[0]):
                return f", key {key!r}"
    return ""


def _listed(keys: Any) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
