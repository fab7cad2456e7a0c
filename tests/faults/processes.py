"""Processes that fail at a file operation or at a moment, and what they report."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from forked_processes import forking_context

PROGRESS = "faults.progress"  # an event of a study's process
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", PROGRESS}  # of sys.addaudithook
STOPPED = "stopped"
Start = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """What happens to a process.

    Args:
        signal: that it receives; None: none.
        operation: number of the operation on files of the folder, from 1, at which it receives the signal, where the progress
            of a study counts as one; 0: at a moment.
        seconds: after which it receives the signal, where ``operation`` is 0.
        file_bytes: the size above which no file can be written; None: no limit.
        handles: the number of file handles that it can open; None: no limit.
    """

    signal: signal.Signals | None = None
    operation: int = 0
    seconds: float = 0.0
    file_bytes: int | None = None
    handles: int | None = None


NONE = Fault()


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Args:
        signal: that ended it; None: it ended by itself.
        error: the class of the exception that it raised; empty: none.
        message: of the exception.
        operations: on files of the folder, as event and path.
        seconds: until its end.
    """

    signal: signal.Signals | None = None
    error: str = ""
    message: str = ""
    operations: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it ended without an error."""
        return self.signal is None and not self.error


@dataclass
class _Operations:
    """The operations of a process on files of a folder; at one of them, the fault happens."""

    folder: str
    fault: Fault
    reports: Connection
    done: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A hook of :func:`sys.addaudithook`."""
        if self.ended or event not in EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        if path.startswith(self.folder) or not os.path.isabs(path):  # shutil.rmtree removes names relative to a folder
            self.add(event, path)

    def sync(self, handle: int) -> None:
        """In place of :func:`os.fsync`, which has no audit event."""
        self.add("fsync", "")
        SYNC(handle)

    def add(self, event: str, path: str) -> None:
        if not self.done:
            _limit(self.fault)
        self.done.append((event, path))
        if self.fault.signal is not None and len(self.done) == self.fault.operation:
            if self.fault.signal == signal.SIGSTOP:
                self.reports.send(STOPPED)
            os.kill(os.getpid(), self.fault.signal)


SYNC = os.fsync


def _limit(fault: Fault) -> None:
    if fault.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_bytes, resource.RLIM_INFINITY))
    if fault.handles is not None:
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (free + fault.handles, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )


def _kill_after(seconds: float, number: signal.Signals) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), number)


def _child(start: Start, folder: Path, fault: Fault, reports: Connection) -> None:
    """Runs in the process that fails."""
    torch.set_num_threads(1)
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)
    operations = _Operations(str(folder), fault, reports)
    sys.addaudithook(operations.audit)
    setattr(os, "fsync", operations.sync)  # noqa: B010 - of another type
    if fault.signal is not None and not fault.operation:
        threading.Thread(target=_kill_after, args=(fault.seconds, fault.signal), daemon=True).start()
    began, outcome = time.perf_counter(), Outcome()
    try:
        start(folder)
    except Exception as error:
        number = f"[{errno.errorcode[error.errno]}] " if isinstance(error, OSError) and error.errno else ""
        outcome = replace(outcome, error=type(error).__name__, message=f"{number}{error}")
    operations.ended = True
    resource.setrlimit(resource.RLIMIT_NOFILE, handles)
    reports.send(replace(outcome, operations=tuple(operations.done), seconds=time.perf_counter() - began))
    reports.close()


@dataclass(frozen=True)
class Running:
    """A process that was started.

    Args:
        process: that was forked.
        reports: the other end of its pipe.
    """

    process: BaseProcess
    reports: Connection

    def wait_until_stopped(self) -> bool:
        """Waits until it has stopped itself; False: it has ended before."""
        try:
            found = self.reports.recv()
        except EOFError:
            return False
        if found != STOPPED:
            return False
        state = Path(f"/proc/{self.process.pid}/stat")
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "TZ":
            time.sleep(0.001)
        return True

    def resume(self) -> None:
        """Continues it after it has stopped itself."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def outcome(self) -> Outcome:
        """How it ended."""
        try:
            found: Outcome = self.reports.recv()
        except EOFError:
            found = Outcome()
        self.process.join()
        self.reports.close()
        code = self.process.exitcode
        assert code is not None
        return found if code == 0 else replace(found, signal=signal.Signals(-code))


def start_process(start: Start, folder: Path, fault: Fault = NONE) -> Running:
    """Starts a process that calls ``start(folder)``, in which the fault happens."""
    context = forking_context()
    reports, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(start, folder, fault, sender))
    process.start()
    sender.close()
    return Running(process, reports)


def run_process(start: Start, folder: Path, fault: Fault = NONE) -> Outcome:
    """The same, and waits for its end."""
    return start_process(start, folder, fault).outcome()
