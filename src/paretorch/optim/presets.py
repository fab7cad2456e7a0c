"""Presets: the eight optimizers of the optimizer study, with their settings and search spaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paretorch.core.checks import nearest
from paretorch.core.search_space import Choice, Range, SearchSpace
from paretorch.former_names import former_members

Setting = float | bool | str | tuple[float, ...]

RATE = Range(1e-4, 1e-1, log=True)  # of SGD and Adagrad
ADAPTIVE_RATE = Range(1e-5, 1e-2, log=True)
DECAY = Range(1e-6, 1e-2, log=True)


@former_members(space="search_space")
@dataclass(frozen=True)
class Preset:
    """An optimizer with its settings, as plain values.

    Args:
        number: in the study, from 1.
        name: in the study.
        optimizer: a class of torch.optim or of ``paretorch.optim``, by name.
        options: its arguments, by name.
        search_space: the search space of ``--tune``, by argument.

    Example:
        >>> print(find_preset("sgd+nesterov").with_options(lr=0.1))
        SGD(lr=0.1, momentum=0.9, weight_decay=0.0001, nesterov=True)
    """

    number: int
    name: str
    optimizer: str
    options: Mapping[str, Setting] = field(default_factory=dict)
    search_space: SearchSpace = field(default_factory=dict)

    def with_options(self, **options: Setting) -> Preset:
        """A copy with arguments replaced or added."""
        return dataclasses.replace(self, options={**self.options, **options})

    @property
    def plain(self) -> dict[str, Any]:
        """The options with tuples as lists, as JSON stores them, so that a run equals its stored copy."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}

    def __str__(self) -> str:
        """The constructor, as ``--optimizer`` accepts it."""
        return f"{self.optimizer}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


PRESETS = (
    Preset(
        1,
        "SGD",
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
        {"lr": RATE, "momentum": Range(0.5, 0.99), "weight_decay": DECAY},
    ),
    Preset(
        2,
        "SGD+Nesterov",
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True},
        {"lr": RATE, "momentum": Range(0.5, 0.99), "weight_decay": DECAY},
    ),
    Preset(
        3,
        "Adam",
        "Adam",
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
        {"lr": ADAPTIVE_RATE, "eps": Range(1e-9, 1e-4, log=True)},
    ),
    Preset(
        4,
        "AdamW",
        "AdamW",
        {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01},
        {"lr": ADAPTIVE_RATE, "weight_decay": Range(1e-4, 1.0, log=True)},
    ),
    Preset(
        5,
        "RMSprop",
        "RMSprop",
        {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8},
        {"lr": ADAPTIVE_RATE, "alpha": Range(0.9, 0.999)},
    ),
    Preset(
        6,
        "Adagrad",
        "Adagrad",
        {"lr": 0.01, "lr_decay": 0.0, "eps": 1e-10},
        {"lr": RATE, "eps": Range(1e-10, 1e-5, log=True)},
    ),
    Preset(
        7,
        "Adadelta",
        "Adadelta",
        {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
        {"lr": Range(1e-2, 10.0, log=True), "rho": Range(0.8, 0.99)},
    ),
    Preset(
        8,
        "MTAdamV2",
        "MTAdamV2",
        {"lr": 1e-3, "betas": (0.9, 0.999)},  # task weights: one over T, (.5, .5) for the study's two
        {"lr": ADAPTIVE_RATE, "mode": Choice(("balanced", "equal")), "weight_decay": DECAY},
    ),
)
"""The learning rate of MTAdamV2 is 3e-4 in the study's protocol of 100 classes: ``with_options(lr=3e-4)``."""


def find_preset(text: str | int) -> Preset:
    """The preset with a number from 1 to 8, or with a name in any case, such as ``"sgd+nesterov"``.

    Raises:
        ValueError: there is none; the message lists all.

    Example:
        >>> find_preset(8).name, find_preset("mtadamv2").number
        ('MTAdamV2', 8)
    """
    wanted = str(text).strip().lower()
    for preset in PRESETS:
        if wanted in (str(preset.number), preset.name.lower()):
            return preset
    numbered = ", ".join(f"{preset.number} {preset.name}" for preset in PRESETS)
    if wanted.lstrip("-").isdigit():
        raise ValueError(f"an optimizer's number is 1 to {len(PRESETS)}, got {wanted}; the optimizers are {numbered}")
    names = nearest(wanted, [preset.name.lower() for preset in PRESETS])
    raise ValueError(f"unknown optimizer {text!r}; known are {names}, or by number: {numbered}")
