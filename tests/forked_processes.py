"""Processes of tests are forked by a server that has torch and the modules of the tests loaded, and no thread."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from torch.multiprocessing.spawn import start_processes

TESTS = Path(__file__).parent
# A forked process imports none of these: it starts within milliseconds, and its time is that of the test.
PRELOADED = [
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.nn.parallel", "safetensors.torch", "filelock",
    "optuna", "pandas", "pycocotools.mask", "PIL.JpegImagePlugin", "paretorch.cli", "paretorch.reports.compare",
    "paretorch.training.loop", "paretorch.studies.tuner", "paretorch.workloads.imagenet_coco", "faults.experiments",
    "sharded_training",
]  # fmt: skip


@functools.cache
def forking_context() -> ForkServerContext:
    """The context of :mod:`multiprocessing` that forks processes; its server is started on the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def run_forked(function: Callable[..., object], arguments: tuple[Any, ...], count: int) -> None:
    """Calls ``function(number, *arguments)`` in ``count`` processes, and waits for them; an error in one is raised here."""
    forking_context()
    start_processes(function, arguments, nprocs=count, start_method="forkserver")
