"""The diagnosis of a workload: its model, losses and batches as a run would train them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

from torch import Tensor, nn

from paretorch.diagnosis.diagnose import diagnose
from paretorch.diagnosis.results import Diagnosis
from paretorch.diagnosis.warm_up import MakeOptimizer
from paretorch.optim import MultiTaskOptimizer
from paretorch.training import randomness
from paretorch.training.names.devices import find_device
from paretorch.training.names.methods import find_method
from paretorch.training.names.optimizers import find_optimizer, optimizers
from paretorch.training.names.workloads import find_workload
from paretorch.training.resolved_run import check
from paretorch.training.run import Run
from paretorch.training.workload_checks import check_losses, data_of, trained_model
from paretorch.workloads.forward import Batch, outputs_of
from paretorch.workloads.streams import Stream, training_batches


def diagnose_workload(run: Run, *, measured: int = 24, warmup: int = 100, seconds: float = math.inf) -> Diagnosis:
    """Diagnoses the model of a run: its workload, tasks, optimizer, batch size, seed and device.

    Args:
        run: nothing is trained or written in its name; its method and epochs have no effect.
        measured: number of batches that are measured.
        warmup: steps of the warm-up training.
        seconds: after which the warm-up ends early; by default it never does.

    Raises:
        ValueError: a name or an option is not known, or nothing can be measured; see :func:`paretorch.diagnose`.
    """
    check(run)
    workload = find_workload(run.workload, run.options)
    tasks = tuple(task for task in workload.tasks if not run.tasks or task in run.tasks)
    device = find_device(run.device)
    with randomness.preserved(device):
        randomness.seed_all(run.seed)
        model = trained_model(workload, tasks).to(device)
        splits = data_of(workload).only(tasks).to(device)
        check_losses(workload, model, splits)

        def losses_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            return workload.losses(*outputs_of(model, batch))

        make: MakeOptimizer = find_optimizer(
            run.optimizer, run.optimizer_options, find_method("Equal()"), tasks, run.clip
        )
        if run.optimizer in multi_task_optimizers():
            raise ValueError(
                f"the optimizer {run.optimizer} balances by itself; a diagnosis measures without balancing: give an "
                "ordinary one, such as --optimizer 'Adam(lr=0.001)'"
            )
        batches = _batches(splits.train, run.batch_size, run.seed)
        return diagnose(model, losses_of, batches, measured=measured, warmup=warmup, seconds=seconds, optimizer=make)


def multi_task_optimizers() -> set[str]:
    """The names of the optimizers that take the gradient of each task."""
    return {name for name, found in optimizers().items() if issubclass(found, MultiTaskOptimizer)}


def _batches(streams: tuple[Stream, ...], size: int, seed: int) -> Iterator[Batch]:
    """The batches of a run, epoch after epoch, without end."""
    for epoch in count():
        yield from training_batches(streams, size, seed, epoch)
