"""What a step may change for a moment is restored where the step is interrupted, at whatever instant."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn

# Attributes of a module that hold its tensors and its hooks.
_TABLES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks")


class RestoredOnError:
    """A context in which an exception restores grad mode, and the tables, the mode and the forward function of modules.

    A context manager that is written in Python, torch's own included, does not restore what it changed where KeyboardInterrupt
    arrives within its entry or its exit. Around it, this context does: the interrupt is raised within its block, and its own exit
    is not interrupted again.

    Args:
        modules: with all of their submodules. The values of parameters and buffers are not copied.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self._modules = list({each: None for module in modules for each in module.modules()})

    def __enter__(self) -> None:
        self._grad = torch.is_grad_enabled()
        self._saved = [
            (each, each.training, each.__dict__.get("forward"), [dict(each.__dict__[name]) for name in _TABLES])
            for each in self._modules
        ]

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            return
        torch.set_grad_enabled(self._grad)
        for module, training, forward, tables in self._saved:
            module.training = training
            _restore(module.__dict__, "forward", forward)
            for name, table in zip(_TABLES, tables, strict=True):
                current: dict[Any, Any] = module.__dict__[name]
                if current.keys() != table.keys() or any(current[key] is not table[key] for key in table):
                    current.clear()
                    current.update(table)


def _restore(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value
    else:
        attributes.pop(name, None)
