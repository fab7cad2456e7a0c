"""The process of a worker: it trains runs one after the other and reports their progress.

The runner starts it as ``python -P -m paretorch.studies.worker MODULE:FUNCTION THREADS``. Lines of JSON are its input (a run and
its folder) and its output (events). A separate process, rather than a fork or a pickled function, needs no main guard in the
script or notebook that starts a study, sets the number of threads before torch is imported, and limits a crash to one run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from paretorch.storage import atomic
from paretorch.storage.locks import MovedFolderError, watch_locks
from paretorch.studies import failure_record
from paretorch.studies.divergence import DivergedError, check_parameters
from paretorch.training.monitoring.training_monitor import NonFiniteParametersError
from paretorch.training.run import Run
from paretorch.training.tracking.contract import NO_TRACKING, Tracking, TrackingWarning

LAST_EVENTS = ("finished", "failed")  # of a job


class Train(Protocol):
    """A function that trains a run in its folder, resumes it, or finds it finished."""

    def __call__(self, run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> object:
        """Calls ``progress(finished epochs, all epochs)`` at the start and after every epoch.

        In a study with trackers, the function has the argument ``tracking`` as well.
        """


def train_with_rare_checkpoints(
    run: Run, folder: Path, *, progress: Callable[[int, int], None], tracking: Tracking = NO_TRACKING
) -> object:
    """Trains as ``paretorch.train`` does, but writes fewer checkpoints if epochs are short."""
    from paretorch.training.loop import train

    return train(run, folder, progress=progress, checkpoint_every=None, tracking=tracking)


def find_train(name: str) -> Train:
    """The function that ``module:function`` names."""
    module, function = name.split(":")
    train: Train = getattr(importlib.import_module(module), function)
    return train


def main() -> None:
    """Trains the runs of the standard input until it is closed."""
    # the output of a workload must not be read as an event: it is redirected to the error stream, which is the worker's log
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import torch

    torch.set_num_threads(int(sys.argv[2]))
    train = find_train(sys.argv[1])
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            events.write(json.dumps(event) + "\n")

    send({"event": "ready"})
    while True:
        train_order(json.loads(orders.get()), train, send)


def _read_orders(orders: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    # the runner has ended or has no more runs: an unfinished run is resumed from its checkpoint later
    os._exit(0)


def train_order(order: dict[str, Any], train: Train, send: Callable[[dict[str, Any]], None]) -> None:
    """Trains one run and sends how it ended. A run that raises leaves ``failed.json`` in its folder.

    Args:
        order: ``run``, ``folder``, ``tracking``, ``trial``: whether the run is stopped when its parameters become nan, and
            ``others``, each with a run and a folder, which are trained together with it; from a runner on the same machine also
            ``locks``, those of the runner: nothing is written in a study's folder that was moved.
        train: the function that trains.
        send: receives the events: ``started``; ``progress`` with ``done`` and ``of``; ``note`` with a ``text``, such as a
            warning about a tracker; then ``finished``, or ``failed`` with ``error``.
    """
    watch_locks(order.get("locks", {}))
    if order.get("others"):
        _train_group([order, *order["others"]], send)
        return
    run, folder = Run.from_json(order["run"]), Path(order["folder"])
    tracking = Tracking.from_json(order["tracking"])
    options = {"tracking": tracking} if tracking.trackers else {}
    send({"event": "started"})

    def progress(done: int, of: int) -> None:
        if order["trial"]:
            check_parameters(folder / "checkpoint")
        send({"event": "progress", "done": done, "of": of})

    try:
        atomic.remove_file(folder / failure_record.FILE)  # of the last attempt
        with _warnings_of_trackers(send):
            train(run, folder, progress=progress, **options)
    except Exception as error:
        send({"event": "failed", "error": _record_failure(run, folder, error)})
    else:
        send({"event": "finished"})


def _train_group(orders: Sequence[Mapping[str, Any]], send: Callable[[dict[str, Any]], None]) -> None:
    """Trains runs that differ in the seed alone, and sends which of them failed."""
    from paretorch.training.together.loop import train_together

    runs, folders = [Run.from_json(each["run"]) for each in orders], [Path(each["folder"]) for each in orders]
    send({"event": "started"})

    def progress(places: Sequence[int], done: int, of: int) -> None:
        send({"event": "progress", "members": list(places), "done": done, "of": of})

    try:
        for folder in folders:
            atomic.remove_file(folder / failure_record.FILE)
    except MovedFolderError as error:
        send({"event": "failed", "error": str(error.strerror)})
        return
    found = train_together(runs, folders, progress=progress, note=lambda text: send({"event": "note", "text": text}))
    errors = {
        str(place): _record_failure(runs[place], folders[place], error)
        for place, error in enumerate(found)
        if isinstance(error, Exception)
    }
    send({"event": "finished", "errors": errors})


def _record_failure(run: Run, folder: Path, error: Exception) -> str:
    """Writes ``failed.json``, unless the folder was moved or removed; returns the error as one line."""
    if isinstance(error, MovedFolderError):
        return str(error.strerror)
    summary = f"{type(error).__name__}: {error}"
    diverged = isinstance(error, DivergedError | NonFiniteParametersError)
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(MovedFolderError):  # the runner finds out by itself
        failure_record.write_failure(folder, run, failure_record.FailureRecord(summary, text, diverged))
    return summary


@contextlib.contextmanager
def _warnings_of_trackers(send: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Sends warnings about trackers as events, which are printed on the console; others remain in the log."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
            if issubclass(category, TrackingWarning):
                send({"event": "note", "text": str(message)})
            else:
                default(message, category, *args, **kwargs)

        warnings.showwarning = show
        yield


if __name__ == "__main__":
    main()
