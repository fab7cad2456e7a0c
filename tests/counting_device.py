"""A device that counts transfers: tensors on the host that present themselves as tensors of another device.

Code that reads the device of a tensor, as for CUDA, takes the path of a device; every operation that would make the host wait
for it is counted with its place.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the only one other than the CPU whose backward runs without an accelerator
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class DeviceTensor(Tensor):
    """A tensor of the counting device."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> DeviceTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
            requires_grad=value.requires_grad,
        )

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError("a tensor of the counting device is used outside of its context")


class CountingDevice(TorchDispatchMode):
    """A context in which the device exists; ``waits`` has the place in Paretorch of every operation that waits for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # this is no Python code of the graph's
            return self._run(func, args, dict(kwargs or {}))

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_here = any(isinstance(leaf, DeviceTensor) for leaf in given)
        target = kwargs.get("device")
        name = func._schema.name
        if target is not None and torch.device(target).type == DEVICE.type:
            kwargs["device"], goes_here = torch.device("cpu"), True
        else:
            goes_here = is_here and target is None
        if self._waits(name, args, kwargs, given, is_here, goes_here):
            self.waits.append(_place(name))
        out = func(*tree_map(_host, args), **tree_map(_host, kwargs))
        if not goes_here:
            return out
        if name.endswith("_") and isinstance(args[0], DeviceTensor):
            return args[0]
        return tree_map(lambda leaf: DeviceTensor(leaf) if isinstance(leaf, Tensor) else leaf, out)

    def _waits(
        self, name: str, args: Any, kwargs: dict[str, Any], given: list[Tensor], is_here: bool, goes_here: bool
    ) -> bool:
        if name == "aten::_to_copy":
            return is_here != goes_here and not (goes_here and kwargs.get("non_blocking"))
        if name == "aten::copy_":
            one, other = (isinstance(each, DeviceTensor) for each in args[:2])
            return one != other and args[1].dim() > 0
        if not is_here:
            return False
        if name in READS:
            return True
        indices = tree_leaves(args[1]) if name in INDEXED else []
        return any(
            index is not None and (not isinstance(index, DeviceTensor) or index.dtype == torch.bool)
            for index in indices
        )


def _host(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, DeviceTensor) else leaf


def _place(name: str) -> str:
    frames = [frame for frame in traceback.extract_stack() if "paretorch" in frame.filename.split("src")[-1]]
    if not frames:
        return f"{name} outside of Paretorch"
    return f"{name} at {frames[-1].filename.split('paretorch/')[-1]}:{frames[-1].lineno}"


def on_device(module: nn.Module) -> nn.Module:
    """A module with its parameters and buffers on the counting device, in place."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                moved = DeviceTensor(parameter.detach()).requires_grad_()
                moved._is_param = True  # torch's mark of a subclass that is a parameter
                each._parameters[name] = cast(nn.Parameter, moved)
        for name, buffer in each._buffers.items():
            if buffer is not None and name != "task_names":  # names on the meta device cannot be read
                each._buffers[name] = DeviceTensor(buffer)
    return module


def waits_of(step: Callable[[], object], warmup: int = 3) -> list[str]:
    """The places at which the last of several steps waits for the device."""
    # autocast does not know the kind of device
    device = CountingDevice()
    with device, patch("torch.is_autocast_enabled", lambda *_: False):
        for _ in range(warmup):
            step()
        device.waits.clear()
        step()
    return device.waits
