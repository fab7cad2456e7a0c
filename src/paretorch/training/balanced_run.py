"""Static weights of a workload from the first part of one balanced run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from paretorch.balance.static_weights import FEWEST_RUN, StaticWeights, comparing_method, weights_of_norms
from paretorch.core.fork.pausing import paused_forks
from paretorch.optim import MultiTaskOptimizer
from paretorch.storage.checkpoint_file import CheckpointFile
from paretorch.storage.checkpoint_folder import Checkpoint
from paretorch.training import randomness
from paretorch.training.line_search import searches
from paretorch.training.names.devices import find_device
from paretorch.training.names.methods import find_method
from paretorch.training.names.optimizers import optimizers
from paretorch.training.names.workloads import data_digest, digest
from paretorch.training.resolved_run import ResolvedRun, resolve
from paretorch.training.run import Run
from paretorch.workloads.streams import combined_seed, steps_per_epoch, training_batches

SHARE = 1 / 3  # of a run


def balanced_weights(run: Run, share: float = SHARE, checkpoint: Path | None = None) -> StaticWeights:
    """Static weights from the gradient norms along the first part of a run; see :func:`paretorch.find_weights`.

    Gradients are compared on the parameters of the encoder. The learning rate follows the schedule of the whole run. Of the
    data, only the training split is used.

    Args:
        run: the run; its method compares gradients.
        share: of its steps, in (0, 1].
        checkpoint: a folder in which the state is stored after each epoch, and from which the same call continues after an
            interruption, to the same weights; None: nothing is stored.

    Raises:
        ValueError: a single task, a method that compares no gradients, an optimizer that balances by itself, or too few steps.
        FloatingPointError: a loss or gradient is not finite; the message names the task.

    Example:
        >>> run = Run("tabular", {"table": "diabetes"}, method="IMTLG()", batch_size=32, epochs=6)
        >>> list(balanced_weights(run))
        ['progression', 'bmi', 'bp']
    """
    return weights_of_norms(gradient_norms(run, share, checkpoint), run.method)


def gradient_norms(run: Run, share: float = SHARE, checkpoint: Path | None = None) -> list[Mapping[str, float]]:
    """The norms of the task gradients in each step of the first part of a run; see :func:`balanced_weights`."""
    if not 0 < share <= 1:
        raise ValueError(f"share is the part of the run that is trained, 0 < share <= 1, got {share}")
    comparing_method(find_method(run.method))
    check_weighted(run)
    with seeded(dataclasses.replace(run, surface="parameters", test=False)) as resolved:
        if len(resolved.tasks) < 2:
            raise ValueError(f"static weights are for two tasks or more, got {resolved.tasks[0]!r} alone")
        return _norms(
            resolved, share, None if checkpoint is None else CheckpointFile(checkpoint, declared(run, share=share))
        )


def declared(run: Run, **options: Any) -> dict[str, str]:
    """What decides the numbers of a search of weights, as texts by name: the run, its workload's files, and further options."""
    data = data_digest(run.workload, run.options)
    files = {"source": digest(run.workload)} | ({} if data is None else {"data": data})
    values: dict[str, Any] = {"run": run.to_json(), **files, **options}
    return {name: json.dumps(value, sort_keys=True) for name, value in values.items()}


def check_weighted(run: Run) -> None:
    """Checks that the optimizer of a run descends a weighted sum of losses.

    Raises:
        ValueError: it is a line search or a multi-task optimizer.
    """
    if run.optimizer in searches() or issubclass(optimizers().get(run.optimizer, torch.optim.Adam), MultiTaskOptimizer):
        raise ValueError(
            f"static weights are for an optimizer of the weighted sum of losses, and {run.optimizer} combines the tasks by "
            "itself: give one of torch.optim, such as 'Adam(lr=0.001)'"
        )


def _norms(resolved: ResolvedRun, share: float, checkpoint: CheckpointFile | None) -> list[Mapping[str, float]]:
    """The norms of the task gradients in each step."""
    run, streams = resolved.run, resolved.splits.train
    per_epoch = steps_per_epoch(streams, run.batch_size)
    steps = math.ceil(share * run.epochs * per_epoch)
    if steps < FEWEST_RUN:
        samples = max(map(len, streams))
        more = math.floor((FEWEST_RUN - 1) / (share * per_epoch)) + 1
        smaller = samples // (math.floor((FEWEST_RUN - 1) / (share * run.epochs)) + 1)
        raise ValueError(
            f"the balanced run takes {share:.2g} of {run.epochs} epoch{'s' * (run.epochs != 1)} of {per_epoch} "
            f"step{'s' * (per_epoch != 1)} ({samples} samples, batches of {run.batch_size}), which is {steps} "
            f"step{'s' * (steps != 1)}, expected at "
            f"least {FEWEST_RUN}: give --epochs {more}" + (f", or --batch-size {smaller}" if smaller else "")
        )
    norms: list[Mapping[str, float]] = []
    done = 0
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        done, norms = state["epochs"], state["norms"]
        resolved.restore(Checkpoint(done, state, checkpoint.path))
    resolved.model.train()
    with paused_forks(resolved.model):
        for epoch in range(done, math.ceil(steps / per_epoch)):
            for batch in training_batches(streams, run.batch_size, run.seed, epoch):
                if len(norms) == steps:
                    break
                resolved.schedule.before(len(norms))
                balance = resolved.update(batch).balance
                # without any label there is no balance
                norms.append({} if balance is None else dict(zip(balance.tasks, balance.norms.tolist(), strict=True)))
            if checkpoint is not None:
                checkpoint.save(epoch + 1, {"epochs": epoch + 1, "norms": norms, **resolved.states()})
    return norms


@contextmanager
def seeded(run: Run) -> Iterator[ResolvedRun]:
    """The objects of a run, with its initial weights, and within the block its random numbers; no files are written."""
    device = find_device(run.device)
    with randomness.deterministic(run.deterministic), randomness.preserved(device):
        randomness.seed_all(run.seed)
        resolved = resolve(run)
        randomness.seed_all(combined_seed(run.seed, 1))
        yield resolved
