"""A worker process: trains the runs it is sent, one after the other, and says how they go.

Started by the runner as ``python -P -m paretorch.studies.worker MODULE:FUNCTION THREADS``: without the current folder on the
import path. Lines of JSON in (a run and its folder), lines of JSON out (events). A process of its own, rather than a fork or a
pickled function, so that a script or notebook that starts a study needs no main guard, threads are set before torch is
imported, and a crash costs one run.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from paretorch.studies.diverged import DivergedError, check_numbers
from paretorch.studies.folder import write_json
from paretorch.training.monitoring.training_monitor import ExplodedError
from paretorch.training.run import Run


class Train(Protocol):
    """What a worker calls: trains a run in its folder, resumes it or finds it finished."""

    def __call__(self, run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> object:
        """Calls ``progress(epochs done, epochs in all)`` as it goes on."""


def train_sparingly(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> object:
    """Trains as ``paretorch.train`` does, with checkpoints as rare as short epochs ask for."""
    from paretorch.training.loop import train

    return train(run, folder, progress=progress, checkpoint_every=None)


def main() -> None:
    """Serves runs from the standard input until it closes."""
    # what a workload prints must not be taken for events: it goes where the errors go, into the worker's log
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import torch

    module, function = sys.argv[1].split(":")
    torch.set_num_threads(int(sys.argv[2]))
    train: Train = getattr(importlib.import_module(module), function)
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    say(events, {"event": "ready"})
    while True:
        serve(json.loads(inbox.get()), train, lambda event: say(events, event))


def _listen(inbox: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        inbox.put(line)
    # the runner is gone or has no more runs: whatever is half done is taken up from its checkpoint
    os._exit(0)


def say(events: Any, event: dict[str, Any]) -> None:
    """Writes one event."""
    with contextlib.suppress(BrokenPipeError):
        events.write(json.dumps(event) + "\n")


def serve(order: dict[str, Any], train: Train, send: Callable[[dict[str, Any]], None]) -> None:
    """Trains one run and sends how it ended; a run that raises leaves ``failed.json`` in its folder.

    Args:
        order: ``run``, ``folder`` and whether it is a ``trial``, which is stopped where it cannot come to anything.
        train: what trains.
        send: takes the events: ``progress`` with ``done`` and ``of``, then ``finished``, or ``failed`` with ``error``.
    """
    run, folder = Run.from_json(order["run"]), Path(order["folder"])
    record = folder / "failed.json"
    record.unlink(missing_ok=True)

    def progress(done: int, of: int) -> None:
        if order["trial"]:
            check_numbers(folder / "checkpoint")
        send({"event": "progress", "done": done, "of": of})

    try:
        train(run, folder, progress=progress)
    except Exception as error:
        summary = f"{type(error).__name__}: {error}"
        folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"run": run.to_json(), "error": summary, "traceback": traceback.format_exc()}
        if isinstance(error, DivergedError | ExplodedError):
            content["diverged"] = True
        write_json(record, content)
        send({"event": "failed", "error": summary})
    else:
        send({"event": "finished"})


if __name__ == "__main__":
    main()
