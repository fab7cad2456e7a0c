"""The model of a finished run: loaded, and exported to one file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretorch.pareto.files.export import write_model
from paretorch.pareto.files.ownership import metadata
from paretorch.storage import checkpoint_folder
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import parse_json
from paretorch.storage.tensor_files import first_difference, host_copies, read_tensors, shapes
from paretorch.storage.value_types import typed
from paretorch.training.names.workloads import named_workload, recorded_workload
from paretorch.training.record.kept_epoch import KEPT
from paretorch.training.record.run_identity import DATA, accepted_owners, changed_data, read_run, verified_result
from paretorch.training.workload_checks import trained_model
from paretorch.workloads.base import DataWarning, Workload
from paretorch.workloads.streams import one_pass


def load_model(path: str | Path, workload: str | None = None) -> nn.Module:
    """The model of a finished run, in eval mode on the CPU: with the last weights, or the best ones if the run keeps them.

    Args:
        path: the folder of the run, or a file that ``export_run`` wrote as ``.safetensors``.
        workload: its workload, as the command line names it. A Python file is executed if it is named here, or if the run
            names it and the user has named a file of the same content before.

    Returns:
        A module with an encoder and heads by task; its output is that of each head, by task.

    Raises:
        FileNotFoundError: there is no finished run with a model.
        ValueError: the run trained a front, its workload is a file that the user has not named, or a file is damaged or does not
            fit the model.
    """
    path = Path(path)
    if path.is_file():
        return _model_of_file(path, workload)
    started = _started(path)
    result = verified_result(path)
    if files := changed_data(result.run, started.get(DATA)):
        warnings.warn(
            f"{files} has changed since the run in {path} was started: its workload now prepares inputs in another way than for "
            "this model, such as with another mean. Restore the file to evaluate the model",
            DataWarning,
            stacklevel=2,
        )
    model = _empty_model(_workload(started["run"], path / "run.json", workload), result.tasks)
    best = result.run.keep == "best"
    folder, epoch = (path / "best", result.facts.get(KEPT)) if best else (path / "checkpoint", result.run.epochs)
    found = checkpoint_folder.load_latest(folder, accepted_owners(started))
    if found is None or found.epoch != epoch:
        raise FileNotFoundError(
            f"{folder} contains no model after epoch {epoch}: it was removed, or an earlier version wrote the run. Train the run "
            "again in another folder"
        )
    found.load_model(model)
    return model.eval()


def export_run(folder: Path, path: Path, workload: str | None = None, fixed_batch: int | None = None) -> None:
    """Writes the model of a finished run to a file.

    Args:
        folder: of the run.
        path: ends in ``.safetensors``: the state dict; the metadata contain tasks and workload. Or in ``.onnx``: the function
            from the encoder's inputs to each task's output.
        workload: see :func:`load_model`.
        fixed_batch: batch size of the ONNX model; None: any.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_model` and :func:`paretorch.pareto.files.export.write_model`.
    """
    started, model = _started(folder), load_model(folder, workload)
    run, tasks = started["run"], verified_result(folder).tasks
    example = None
    if path.suffix == ".onnx":
        example = _example(_workload(run, folder / "run.json", workload), tasks, fixed_batch or 2)
    about = {"tasks": json.dumps(tasks), "workload": run["workload"], "options": json.dumps(run["options"])}
    state = host_copies(model.state_dict())
    write_model(model, state, tasks, about, path, example=example, fixed_batch=fixed_batch is not None)


def _started(folder: Path) -> dict[str, Any]:
    """The content of ``run.json`` of a run of one model."""
    started = read_run(folder)
    if started is None:
        raise FileNotFoundError(
            f"{folder} contains no run: expected a folder that `paretorch train`, a study or `paretorch front` wrote"
        )
    if started["run"].get("front"):
        raise ValueError(
            f"{folder} contains a front of several models: `paretorch pick {folder} WEIGHTS` loads or exports one of them"
        )
    return started


def _workload(run: Mapping[str, Any], where: Path, given: str | None) -> Workload:
    if given is not None:
        return named_workload(given, run)
    return recorded_workload(run["workload"], run["options"], where)


def _empty_model(workload: Workload, tasks: tuple[str, ...]) -> nn.Module:
    """A model with heads for ``tasks``; the caller's random generators are not used."""
    with torch.random.fork_rng(devices=()):
        return trained_model(workload, tasks)


def _example(workload: Workload, tasks: tuple[str, ...], size: int) -> Any:
    """Inputs of the encoder: the first ``size`` samples of the first validation stream with one of the tasks."""
    stream = workload.data().only(tasks).validation[0]
    return next(one_pass(stream, size, order=None)).inputs


def _model_of_file(path: Path, given: str | None) -> nn.Module:
    found = metadata(path)
    if not {"tasks", "workload", "options"} <= set(found):
        raise ValueError(
            f"{path} is no exported model of a run: expected a file that `paretorch export DIR {path.stem}.safetensors` wrote"
        )
    with naming_damaged(path, "Export it again"):
        tasks = typed(parse_json(found["tasks"]), tuple[str, ...], "tasks")
        options = typed(parse_json(found["options"], allow_nan=True), Mapping[str, Any], "options")
        _, tensors = read_tensors(path)
    model = _empty_model(_workload({"workload": found["workload"], "options": options}, path, given), tasks)
    if (name := first_difference(shapes(model.state_dict()), shapes(tensors))) is not None:
        raise ValueError(
            f"{path} does not fit the model of {found['workload']}: {name!r} differs. Was the workload's code changed?"
        )
    model.load_state_dict(tensors)
    return model.eval()
