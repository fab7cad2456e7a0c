"""A substitute for training in the tests of the runner, which takes seconds and writes the same files.

It minimizes a quadratic with seeded noise, writes a checkpoint after every epoch, and writes its result last. The name of the
run's method selects an event of every epoch: ``Raise``, ``Die``, ``Slow``, ``Print``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from paretorch.storage.json_files import write_json
from paretorch.training.run import Run


def train(run: Run, folder: Path, *, progress: Callable[[int, int], None]) -> None:
    """Trains a run, or resumes it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "started.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    checkpoint = folder / "checkpoint.json"
    point, begin = json.loads(checkpoint.read_text()) if checkpoint.exists() else (1.0, 0)
    progress(begin, run.epochs)
    for epoch in range(begin, run.epochs):
        _interfere(run.method)
        noise = torch.randn(4096, generator=torch.Generator().manual_seed(1000 * run.seed + epoch))
        point = 0.5 * point + float(noise.sum()) * 1e-3
        write_json(checkpoint, [point, epoch + 1])
        progress(epoch + 1, run.epochs)
    write_json(folder / "result.json", {"point": point, "threads": torch.get_num_threads()})


def _interfere(method: str) -> None:
    if method == "Raise" and not os.environ.get("FAKE_CURED"):
        raise ValueError("the loss of task 'a' is nan")
    if method == "Die":
        os._exit(9)
    if method == "Slow":
        time.sleep(0.1)
    if method == "Print":
        print('{"event": "finished"}', flush=True)
