"""Errors and warnings of a command, as messages for its user."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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


# in the messages of torch's RuntimeErrors
WANT_OF_MEMORY = ("not enough memory", "can't allocate memory", "CUDA out of memory")


def _cure(error: BaseException) -> str | None:
    """What the user can do about an error of torch or of the system; None: nothing is known."""
    text = str(error)
    if isinstance(error, MemoryError) or any(each in text for each in WANT_OF_MEMORY):
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
    from paretorch.workloads.base import DataWarning

    return issubclass(category, (DataWarning, SlowLoadingWarning, TrainingWarning, TrackingWarning, DivergedWarning))


def _print(title: str, message: str) -> None:
    Console(emoji=False, stderr=True).print(f"{title} {escape(message)}", highlight=False, soft_wrap=True)


def _raised_by_paretorch(error: BaseException) -> bool:
    """Whether the innermost frame of the traceback is in this package, so that the message is one of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("paretorch.")


def _message(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.filename is None:
        return error.strerror
    paths = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return _path_message(error.errno, paths) or str(error)


def _path_message(number: int | None, paths: Sequence[Path]) -> str | None:
    """What is wrong with the path of an error of the operating system, and the cure; None: its own message is clear."""
    if number in (errno.ENOTDIR, errno.EEXIST):
        for above in (above for path in paths for above in (path, *path.parents)):
            if os.path.lexists(above) and not above.is_dir():
                return f"{above} is no folder, where a folder is expected: move it away, or name another folder"
    if number == errno.EISDIR:
        for path in reversed(paths):
            if path.is_dir():
                return f"{path} is a folder, where a file is expected: move it away, or name another path"
    if number == errno.ENAMETOOLONG:
        return f"{paths[0]} is a longer name than the file system allows: give a shorter one" if paths else None
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) and paths:
        reason = "its file system is read-only" if number == errno.EROFS else "permission denied"
        return f"{paths[-1]} cannot be read or written: {reason}. Change its permissions, or name another path"
    return None
