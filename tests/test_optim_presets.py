"""The eight presets are those of the protocol, and they and their search spaces are valid."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import paretorch.optim
from paretorch.core.search_space import Choice, Range
from paretorch.optim import PRESETS, MultiTaskOptimizer, Preset, find_preset

PROTOCOL = [
    "SGD(lr=0.01, momentum=0.9, weight_decay=0.0001)",
    "SGD(lr=0.01, momentum=0.9, weight_decay=0.0001, nesterov=True)",
    "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08)",
    "AdamW(lr=0.001, betas=(0.9, 0.999), weight_decay=0.01)",
    "RMSprop(lr=0.001, alpha=0.99, eps=1e-08)",
    "Adagrad(lr=0.01, lr_decay=0.0, eps=1e-10)",
    "Adadelta(lr=1.0, rho=0.9, eps=1e-06)",
    "MTAdamV2(lr=0.001, betas=(0.9, 0.999))",
]


def make_optimizer(preset: Preset, **options: Any) -> torch.optim.Optimizer:
    kind: Any = getattr(torch.optim, preset.optimizer, None) or getattr(paretorch.optim, preset.optimizer)
    optimizer: torch.optim.Optimizer = kind([nn.Parameter(torch.ones(2))], **{**preset.options, **options})
    return optimizer


def test_presets_are_those_of_the_protocol() -> None:
    assert [str(preset) for preset in PRESETS] == PROTOCOL
    assert [preset.number for preset in PRESETS] == list(range(1, 9))
    assert len({preset.name for preset in PRESETS}) == 8


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_preset_creates_its_optimizer(preset: Preset) -> None:
    optimizer = make_optimizer(preset)
    assert {name: optimizer.defaults[name] for name in preset.options} == dict(preset.options)
    assert isinstance(optimizer, MultiTaskOptimizer) == (preset.number == 8)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_preset_bounds_of_the_search_space_are_valid(preset: Preset) -> None:
    assert "lr" in preset.search_space
    for name, what in preset.search_space.items():
        assert name in inspect.signature(type(make_optimizer(preset))).parameters
        assert isinstance(what, Range | Choice)
        for value in what.values if isinstance(what, Choice) else (what.low, what.high):
            make_optimizer(preset, **{name: value})
        if isinstance(what, Range) and name in preset.options:
            assert what.low <= float(preset.options[name]) <= what.high  # type: ignore[arg-type]


def test_presets_are_found_by_number_and_by_name() -> None:
    for preset in PRESETS:
        assert find_preset(preset.number) is find_preset(str(preset.number)) is preset
        assert find_preset(preset.name) is find_preset(preset.name.upper()) is find_preset(f" {preset.name.lower()} ")


@pytest.mark.parametrize("number", [0, 9, "9", "-1"])
def test_preset_number_out_of_range_lists_all(number: str | int) -> None:
    with pytest.raises(ValueError, match=r"an optimizer's number is 1 to 8, got .*1 SGD, .*8 MTAdamV2"):
        find_preset(number)


def test_preset_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'adamw'"):
        find_preset("adanw")


def test_preset_options_are_changed_in_a_copy() -> None:
    changed = find_preset("mtadamv2").with_options(lr=3e-4)
    assert changed.options["lr"] == 3e-4
    assert find_preset(8).options["lr"] == 1e-3
