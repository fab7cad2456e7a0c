"""Checks of task names, losses and parameters, whose messages name what was expected, what was given and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from paretorch.core.option_checks import is_number
from paretorch.task_names import check_task_name

T = TypeVar("T")

LESS_SIMILAR = 0.1  # than the most similar name, up to which another name is suggested as well


def checked_task_names(names: Iterable[str]) -> tuple[str, ...]:
    """The declared task names, checked to be distinct strings."""
    if isinstance(names, str):
        raise ValueError(f"tasks is a sequence of names, got the string {names!r}: write ({names!r},)")
    if not isinstance(names, Iterable):
        raise ValueError(f"tasks is a sequence of names, got {names!r}")
    tasks = tuple(names)
    if not tasks:
        raise ValueError("expected at least one task name, got none: write tasks=('seg', 'depth')")
    for name in tasks:
        check_task_name(name)
    repeated = sorted({name for name in tasks if tasks.count(name) > 1})
    if repeated:
        raise ValueError(f"task names must be distinct, got {', '.join(map(repr, repeated))} more than once")
    return tasks


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The question whether one of the most similar known names was meant; empty where none is similar.

    Args:
        name: as given; upper and lower case are equal.
        known: names.
        cutoff: the least similarity, in [0, 1].

    Example:
        >>> did_you_mean("IMTGL", ["MGDA", "IMTL", "IMTLG"])
        "did you mean 'IMTLG' or 'IMTL'?"
    """
    folded = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=cutoff)
    similarity = {each: difflib.SequenceMatcher(None, each, name.lower()).ratio() for each in found}
    close = [each for each in found if similarity[each] >= similarity[found[0]] - LESS_SIMILAR]
    close.sort(key=lambda each: sorted(each) != sorted(name.lower()))  # first where letters are only exchanged
    words = [repr(folded[each]) for each in close]
    listing = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"did you mean {listing}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """A list of the known names, with the most similar ones as a suggestion."""
    names = list(known)
    question = did_you_mean(name, names)
    return f"{', '.join(map(repr, names))}{f'; {question}' if question else ''}"


def check_real(parameters: Iterable[Tensor], where: str) -> None:
    """Check that no parameter is complex: lengths and inner products of gradients are those of real numbers."""
    if any(parameter.is_complex() for parameter in parameters):
        raise ValueError(
            f"{where} got a complex parameter, and lengths and inner products of gradients are those of real numbers: store "
            "it as torch.view_as_real(parameter), and make it complex in the forward"
        )


def check_known_tasks(given: Iterable[str], tasks: tuple[str, ...], where: str) -> None:
    """Check that every given name is a declared task."""
    for name in given:
        if name not in tasks:
            declared = nearest(str(name), tasks) if tasks else "none yet: the first step, or tasks=, declares them"
            raise ValueError(f"{where} got the unknown task {name!r}; declared are {declared}")


def present_losses(losses: Mapping[str, Tensor | None], where: str) -> dict[str, Tensor]:
    """The losses of the present tasks, each checked to be a scalar with a graph, all on one device.

    A task is absent whose loss is None, the number zero, or a scalar tensor that is zero and has no graph, as for a batch
    without labels.
    """
    if not isinstance(losses, Mapping):
        raise ValueError(f"{where} takes a dict of losses by task name, got {type(losses).__name__}")
    given = {name: loss for name, loss in losses.items() if loss is not None and not is_bare_zero(loss)}
    for name, loss in given.items():
        if not isinstance(loss, Tensor):
            raise ValueError(f"the loss of task {name!r} must be a scalar tensor, got {type(loss).__name__}")
        if loss.numel() != 1 or loss.ndim > 0:
            cure = (
                "leave the task out (or give None) when it is absent"
                if loss.numel() == 0
                else "reduce it, for example with .mean()"
            )
            raise ValueError(
                f"the loss of task {name!r} must be a scalar tensor, got shape {tuple(loss.shape)}: {cure}"
            )
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"the loss of task {name!r} has no graph (requires_grad is False): compute it from the model's output, "
                "or leave the task out (or give None) when it is absent"
            )
    devices = {loss.device for loss in given.values()}
    if len(devices) > 1:
        listing = ", ".join(f"{name!r} on {loss.device}" for name, loss in given.items())
        raise ValueError(f"all losses must be on one device, got {listing}: move the targets or outputs together")
    return given


def called(losses_of: Callable[[Any, Any], T], model: Any, batch: Any) -> T:
    """``losses_of(model, batch)``; an error of the caller's function carries a note of the call."""
    try:
        return losses_of(model, batch)
    except Exception as error:
        error.add_note("while calling losses_of(model, batch)")
        raise


def is_bare_zero(loss: object) -> bool:
    """Whether a loss is the number zero, or a scalar zero without a graph: the task has no labels in this batch."""
    if is_number(loss):
        return loss == 0
    if not isinstance(loss, Tensor) or loss.requires_grad or not torch.is_grad_enabled() or loss.numel() != 1:
        return False
    # A compiled graph cannot branch on a value; a loss on the meta device has none.
    return not torch.compiler.is_compiling() and loss.device.type != "meta" and loss.ndim == 0 and float(loss) == 0
