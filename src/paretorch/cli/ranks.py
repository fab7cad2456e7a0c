"""The ranks that ``torchrun`` starts: one process group for a command, and one message for an error."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console

WAIT = timedelta(days=1)  # for rank 0, which evaluates; torchrun ends all ranks when one fails
FAILED = "paretorch/failed"  # the key of the first rank that fails
REPORTED = "paretorch/reported"  # the key that exists once its error is printed
REPORT = timedelta(seconds=30)  # for printing it


def started_ranks() -> int:
    """The number of processes that ``torchrun`` started, of which this is one; 1 without it."""
    started = "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    return int(os.environ.get("WORLD_SIZE", "1")) if started else 1


def check_one_process(command: str | None) -> None:
    """Refuses a command under ``torchrun`` that several processes cannot run."""
    if started_ranks() > 1 and command not in (None, "train"):
        if os.environ.get("RANK") == "0":
            Console(emoji=False, stderr=True).print(
                f"[bold red]Error:[/bold red] torchrun is for `paretorch train`; `paretorch {command}` runs in one process: "
                "start it without torchrun",
                highlight=False,
                soft_wrap=True,
            )
        else:
            time.sleep(REPORT.seconds)  # torchrun ends all ranks when one has ended, and rank 0 has the message
        raise typer.Exit(2)


@contextmanager
def process_group() -> Iterator[None]:
    """Initialises torch.distributed within the block, if ``torchrun`` started this process; else does nothing.

    The first rank that fails reports its error; what then fails on the others, because they wait for it, is not reported.
    """
    ranks = started_ranks()
    if ranks == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    from paretorch.training.distributed.ranks import OtherRankError

    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    uses_cuda = torch.cuda.is_available()
    if uses_cuda and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if uses_cuda else "gloo", timeout=WAIT)
    try:
        yield
    except KeyboardInterrupt:
        if rank:
            os._exit(130)
        raise
    except Exception as error:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*address, None, False, REPORT)  # type: ignore[attr-defined]
        if isinstance(error, OtherRankError) or not _fails_first(store, rank):
            with suppress(Exception):
                store.wait([REPORTED], REPORT)  # torchrun ends all ranks when one has ended
            os._exit(1)
        atexit.register(store.set, REPORTED, "")  # after the error is printed
        Console(emoji=False, stderr=True).print(f"Rank {rank} of {ranks} has failed:", highlight=False)
        raise
    dist.destroy_process_group()


def _fails_first(store: Any, rank: int) -> bool:
    """Whether no other rank has failed before."""
    return bool(store.compare_set(FAILED, "", str(rank)).decode() == str(rank))
