"""Errors and warnings of a command, as messages for its user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape


@contextmanager
def readable_errors(stopped: str = "The same command continues after the last epoch.") -> Iterator[None]:
    """Prints an error that the user can correct as one message with exit code 2; Ctrl-C gives exit code 130.

    Other errors, of this package or of a user's own code, keep their traceback. Warnings about the training are printed as one
    line.

    Args:
        stopped: message after Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            default = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
                if _is_about_training(category):
                    _print("[bold]Note:[/bold]", str(message))
                else:
                    default(message, category, *args, **kwargs)

            warnings.showwarning = show
            yield
    except KeyboardInterrupt:
        Console(emoji=False, stderr=True).print(f"Stopped. {stopped}", highlight=False)
        raise typer.Exit(130) from None
    except (ValueError, FloatingPointError, ModuleNotFoundError, OSError) as error:
        if not (isinstance(error, OSError) or _raised_by_paretorch(error)):
            raise
        _print("[bold red]Error:[/bold red]", _message(error))
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if (cure := _cure(error)) is None:
            raise
        _print("[bold red]Error:[/bold red]", f"{str(error).strip() or 'the memory is exhausted'}. {cure}")
        raise typer.Exit(2) from None


def _cure(error: BaseException) -> str | None:
    """What the user can do about an error of torch or of the system; None: nothing is known."""
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "CUDA out of memory" in text:
        return "There is not enough memory: use less data, a smaller model or a smaller batch"
    if text.startswith("DataLoader worker") and "exited unexpectedly" in text:
        return "A process that reads data has ended, often for want of memory: workers=0 shows its error"
    return None


def _is_about_training(category: type[Warning]) -> bool:
    """Imports modules that every command that trains has imported; other commands never call this."""
    from paretorch.pareto import DivergedWarning
    from paretorch.training.monitoring.loading import SlowLoadingWarning
    from paretorch.training.monitoring.training_monitor import TrainingWarning
    from paretorch.training.tracking.contract import TrackingWarning

    return issubclass(category, (SlowLoadingWarning, TrainingWarning, TrackingWarning, DivergedWarning))


def _print(title: str, message: str) -> None:
    Console(emoji=False, stderr=True).print(f"{title} {escape(message)}", highlight=False, soft_wrap=True)


def _raised_by_paretorch(error: BaseException) -> bool:
    """Whether the innermost frame of the traceback is in this package, so that the message is one of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("paretorch.")


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)
