"""Where errors reach a user of the command line: what can be cured is one message, everything else a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape


@contextmanager
def boundary(stopped: str = "The same command goes on from the last epoch.") -> Iterator[None]:
    """Turns what a user can cure into one message and exit code 2, and Ctrl-C into exit code 130.

    Other errors, ours or of a user's own code, keep their traceback.

    Args:
        stopped: what is said after a Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            shown = warnings.showwarning
            warnings.showwarning = lambda *told: _said(told[0]) if _is_ours(told[1]) else shown(*told)
            yield
    except KeyboardInterrupt:
        Console(stderr=True).print(f"Stopped. {stopped}", highlight=False)
        raise typer.Exit(130) from None
    except (ValueError, FloatingPointError, ModuleNotFoundError, OSError) as error:
        if not (isinstance(error, OSError) or _said_by_us(error)):
            raise
        Console(stderr=True).print(
            f"[bold red]Error:[/bold red] {escape(_message(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from None


def _is_ours(kind: type[Warning]) -> bool:
    """Whether a warning is about the training. Imports what commands that train have imported, and others need not wait for."""
    from paretorch.pareto import DivergedWarning
    from paretorch.training.monitoring.loading import SlowLoadingWarning
    from paretorch.training.monitoring.training_monitor import TroubleWarning

    return issubclass(kind, (SlowLoadingWarning, TroubleWarning, DivergedWarning))


def _said(message: Warning | str) -> None:
    """A warning about the training, as one line without Python's file and line."""
    Console(stderr=True).print(f"[bold]Note:[/bold] {escape(str(message))}", highlight=False, soft_wrap=True)


def _said_by_us(error: BaseException) -> bool:
    """Whether this package raised it, knowing what to say, and not the code that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("paretorch.")


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)
