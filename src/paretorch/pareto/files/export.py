"""The export of one model: to ONNX, or its weights as safetensors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from paretorch.extras import extra
from paretorch.pareto.files.ownership import MARK, check_export
from paretorch.pareto.front import Front
from paretorch.storage.tensor_files import host_copies, write_tensors

INPUTS, BATCH = "inputs", "batch"
FORMAT = "paretorch exported model 1"


def export(front: Front, member: int, path: str | Path, *, example: Any = None, fixed_batch: bool = False) -> Path:
    """Writes one model, in the format of the file's ending.

    ``.onnx``: the function from the encoder's inputs to each task's output, by the task's name, for any number of samples.
    ``.safetensors``: the weights, under the names of the model's state dict; the metadata contain tasks and preference.

    Args:
        front: the front.
        member: index of the model, 0 to N - 1.
        path: the file; its folder is created.
        example: (B, ...) inputs of the encoder, two samples or more; for ``.onnx`` only.
        fixed_batch: whether the ONNX model accepts only the batch size of ``example``, for models whose computation depends on
            the batch size.

    Returns:
        The path.

    Raises:
        ValueError: another ending, no such model, no example for ONNX, a model that torch cannot export, or an existing file
            that no export wrote, such as a model of the front itself.
        ModuleNotFoundError: onnx and onnxscript are not installed; the message contains the command that installs them.
    """
    model, path = front.model(member), Path(path)
    about = {"tasks": json.dumps(front.tasks), "preference": json.dumps(front.preferences[member].tolist())}
    write_model(model, front.states[member], front.tasks, about, path, example=example, fixed_batch=fixed_batch)
    return path


def write_model(
    model: nn.Module,
    state: Mapping[str, Tensor],
    tasks: tuple[str, ...],
    about: Mapping[str, str],
    path: Path,
    *,
    example: Any = None,
    fixed_batch: bool = False,
) -> None:
    """Writes a model in the format of the file's ending; see :func:`export`.

    Args:
        model: with an encoder and heads by task.
        state: its state dict, for ``.safetensors``.
        tasks: (T,) names, in the order of the ONNX model's outputs.
        about: the metadata of a ``.safetensors`` file.
        path: the file; its folder is created.
        example: see :func:`export`.
        fixed_batch: see :func:`export`.

    Raises:
        ValueError, ModuleNotFoundError: see :func:`export`.
    """
    if path.suffix not in (".onnx", ".safetensors"):
        raise ValueError(f"{path}: a model is exported as .onnx or .safetensors, got the ending {path.suffix!r}")
    check_export(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".onnx":
        _onnx(model, tasks, path, example, fixed_batch)
    else:
        write_tensors(path, host_copies(state), about)


class Outputs(nn.Module):
    """A model as a function from inputs to the outputs of all heads, flattened, in the order of the tasks.

    Args:
        model: with an encoder and heads by task.
        tasks: (T,) names.
    """

    def __init__(self, model: nn.Module, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.tasks = tasks

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, (B, ...) each."""
        return tuple(output for outputs in self.by_task(inputs).values() for output in tree_flatten(outputs)[0])

    def by_task(self, inputs: Tensor) -> dict[str, Any]:
        """The output of each head."""
        features = self.model.encoder(inputs)  # type: ignore[operator]
        heads: nn.ModuleDict = self.model.heads  # type: ignore[assignment]
        return {task: heads[task](features) for task in self.tasks}


@torch.no_grad()
def _names(outputs: Outputs, example: Tensor) -> list[str]:
    """Names of the outputs: the task, with a number if a head has several tensors."""
    counts = {task: len(tree_flatten(output)[0]) for task, output in outputs.by_task(example).items()}
    return [
        task if count == 1 else f"{task}.{place}" for task, count in counts.items() for place in range(count)
    ]  # fmt: skip


def _onnx(model: nn.Module, tasks: tuple[str, ...], path: Path, example: Any, fixed_batch: bool) -> None:
    with extra("export"):
        import onnx  # noqa: F401 - torch imports both late
        import onnxscript  # noqa: F401
    if not isinstance(example, Tensor) or example.ndim < 1:
        raise ValueError(
            f"{path}: an ONNX model is made from an example of the encoder's inputs, one tensor (B, ...); got "
            f"{type(example).__name__}. The weights alone need none: give a path that ends in .safetensors"
        )
    if len(example) < 2 and not fixed_batch:
        raise ValueError(
            f"{path}: the example has {len(example)} sample: with two or more, any batch size can be exported"
        )
    outputs = Outputs(model, tasks).eval()
    shapes = None if fixed_batch else ({0: torch.export.Dim(BATCH)},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own code
            program = torch.onnx.export(
                outputs, (example,), dynamo=True, dynamic_shapes=shapes, input_names=[INPUTS],
                output_names=_names(outputs, example), verbose=False,
            )  # fmt: skip
    except Exception as error:
        if not type(error).__module__.startswith("torch"):
            raise
        cause = str(error.__cause__ or error).strip().splitlines()
        hint = "" if fixed_batch else "; if it depends on the batch size, try fixed_batch"
        raise ValueError(
            f"{path}: torch cannot export this model to ONNX: {cause[0] if cause else type(error).__name__}{hint}"
        ) from error
    assert program is not None
    program.model.metadata_props[MARK] = FORMAT
    path.unlink(missing_ok=True)  # of an earlier export; program.save follows links
    program.save(str(path))
