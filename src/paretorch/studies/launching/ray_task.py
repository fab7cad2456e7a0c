"""What a Ray task does: it trains one job and yields its events."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paretorch.storage.folder_archive import download, upload
from paretorch.studies.launching.contract import Event
from paretorch.studies.worker import LAST_EVENTS, find_train, train_order

Send = Callable[[Event], None]


def train_events(order: dict[str, Any], train: str, threads: int, directory: str, url: str) -> Iterator[Event]:
    """Trains a job in a thread, and yields its events.

    Args:
        order: the job, see :func:`~paretorch.studies.launching.contract.order`.
        train: see :class:`~paretorch.studies.launching.contract.WorkerSetup`.
        threads: CPU threads of the training.
        directory: the current folder of the study's command, to which paths of workloads are relative.
        url: of the archive in which the run is kept; empty: the run's folder is shared by the nodes.
    """
    function = find_train(train)
    with contextlib.suppress(OSError):  # a node without this folder has workloads that are modules
        os.chdir(directory)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def work() -> None:
        import torch

        torch.set_num_threads(threads)
        try:
            if url:
                _train_in_scratch(order, url, lambda order, send: train_order(order, function, send), events.put)
            else:
                train_order(order, function, events.put)
        except BaseException as error:  # without a last event, the task would wait forever
            events.put({"event": "failed", "error": f"{type(error).__name__}: {error}"})

    threading.Thread(target=work, daemon=True).start()
    while True:
        event = events.get()
        yield event
        if event["event"] in LAST_EVENTS:
            return


def _train_in_scratch(
    order: dict[str, Any], url: str, train: Callable[[dict[str, Any], Send], None], send: Send
) -> None:
    """Trains in a folder of this node, which is stored at ``url`` after each checkpoint and at the end."""
    scratch = Path(tempfile.mkdtemp(prefix="paretorch-"))
    folder = scratch / Path(order["folder"]).name
    try:
        download(url, folder)
        stored = _checkpoints(folder)

        def send_stored(event: Event) -> None:
            nonlocal stored
            now = _checkpoints(folder)
            if event["event"] in LAST_EVENTS or (event["event"] == "progress" and now != stored):
                upload(folder, url)
                stored = now
            send(event)

        train(order | {"folder": str(folder)}, send_stored)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _checkpoints(folder: Path) -> list[tuple[str, int]]:
    """The files of the checkpoints with their times."""
    files = (path for path in (folder / "checkpoint").rglob("*") if path.is_file())
    return sorted((str(path), path.stat().st_mtime_ns) for path in files)
