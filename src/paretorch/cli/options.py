"""Arguments and options that several commands have, and constructors in their values."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Annotated, Any

from paretorch.extras import extra

with extra("studies"):
    import typer

TASK_NAMES = "separated by commas; a name with a comma in double quotes: 'left,\"a, b\"'. All by default."
TASK_NAME = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^,]*?))\s*(?:,|\Z)')  # in a list of names

Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD|FILE.py",
        help="A shipped workload, an importable module or a Python file; with options: 'digits(ink=True)'.",
    ),
]
Optimizer = Annotated[
    str, typer.Option(help="The optimizer as a constructor without parameters; see `paretorch list optimizers`.")
]
Epochs = Annotated[int, typer.Option(help="Passes over the training data.")]
BatchSize = Annotated[int, typer.Option(help="Samples per step.")]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights and the data order.")]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr", help="Learning rate: in place of that of --optimizer; not with a line search.", show_default=False
    ),
]
Device = Annotated[str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'mps'.")]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Use deterministic kernels of torch.")]
Schedule = Annotated[str, typer.Option(help="Schedule of the learning rate: constant, cosine, 'step(0.5, 100)'.")]
Track = Annotated[str, typer.Option(help="Log in these packages too: mlflow, tensorboard, wandb; separated by commas.")]
Warmup = Annotated[float, typer.Option(help="Share of the steps over which the learning rate increases.")]


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None, by name."""
    return {name: value for name, value in values.items() if value is not None}


def changed(defaults: type, **values: Any) -> dict[str, Any]:
    """The given values that differ from the defaults of a dataclass, by name: an explicit default is the same run as none."""
    by_default = {field.name: field.default for field in fields(defaults)}
    return {name: value for name, value in given(**values).items() if value != by_default[name]}


def workload_and_optimizer(workload: str, optimizer: str, lr: float | None = None) -> dict[str, Any]:
    """The arguments of :class:`~paretorch.training.run.Run` that two constructor calls and a learning rate give.

    Raises:
        ValueError: a text is no such call, or the optimizer is a line search, which has no learning rate, or the rate is not
            finite and above 0.
    """
    values = zip(
        ("workload", "options", "optimizer", "optimizer_options"),
        (*name_and_options(workload), *name_and_options(optimizer)),
        strict=True,
    )
    found: dict[str, Any] = dict(values)
    if lr is None:
        return found
    from paretorch.training.line_search import searches

    if found["optimizer"] in searches():
        raise ValueError(
            f"--lr has no effect with {found['optimizer']}: a line search chooses the step size of each step itself. "
            "Leave it out"
        )
    if not 0 < lr < math.inf:
        raise ValueError(f"--lr is a finite number above 0, got {lr:g}")
    return found | {"optimizer_options": found["optimizer_options"] | {"lr": lr}}


def name_and_options(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a constructor call, all of them named and plain.

    Raises:
        ValueError: the text is no call, or an argument has no name or is a constructor call itself.
    """
    from paretorch.training.names.constructors import Call, parse

    call = parse(text)
    if call.positional:
        raise ValueError(
            f"{text!r}: options are given by name, as in 'SGD(lr=0.1)', got {call.positional[0]!r} without one"
        )
    for name, value in call.named.items():
        if isinstance(value, Call):
            raise ValueError(f"{text!r}, option {name!r}: expected plain values, got {value.name}(...)")
    return call.name, dict(call.named)


def task_names(text: str) -> tuple[str, ...]:
    """Names of tasks that are separated by commas; a name in double quotes may contain commas, and its own quotes twice.

    Args:
        text: the names; no name, for all tasks, is the empty text only.

    Raises:
        ValueError: a name is repeated, or there is none in a text that is not empty.

    Example:
        >>> task_names('left, "ink, wet"')
        ('left', 'ink, wet')
    """
    found = [(match["quoted"], match["plain"]) for match in TASK_NAME.finditer(text)]
    names = tuple(name for quoted, plain in found if (name := plain if quoted is None else quoted.replace('""', '"')))
    if text and not names:
        raise ValueError(f"expected names of tasks with commas between, got {text!r}; without --tasks, all are trained")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"expected each task once, got {', '.join(map(repr, repeated))} again")
    return names


def numbers(text: str) -> list[float]:
    """Numbers that are separated by commas.

    Raises:
        ValueError: a part of the text is not a number.

    Example:
        >>> numbers("0.7,0.3")
        [0.7, 0.3]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"cannot read {text!r}: expected numbers with commas between, as in 0.7,0.3") from None
