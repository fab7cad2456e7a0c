"""Drawn scenes with two binary tasks whose relation is known: contradicting, partly contradicting, independent, equal."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

import paretorch as pt
from paretorch.workloads import MultiTaskModel
from paretorch.workloads.scenes import SceneImages

CONFLICTS = ("contradicting", "half contradicting", "contradicting, unlike scales")
OTHERS = ("independent", "equal", "independent, unlike scales")
SAMPLES, BATCH = 600, 32
LEFT, ABOVE = "attribute-39", "attribute-40"  # the largest object is left of, above the middle


class Scenes(NamedTuple):
    """Images, two binary labels, and a function that makes a model."""

    images: Tensor
    left: Tensor
    above: Tensor
    model: Callable[[], nn.Module]


@lru_cache(maxsize=1)
def scenes() -> Scenes:
    workload = SceneImages(
        size=32, objects=2, train=SAMPLES, validation=1, test=1, attributes=40, depth=False, normals=False,
        detection=False, encoder="resnet18", width=0.125,
    )  # fmt: skip
    stream = next(iter(workload.data().train[0].batches(SAMPLES, order=None)))
    return Scenes(stream.inputs, stream.targets[LEFT].long(), stream.targets[ABOVE].long(), lambda: workload.model())


class SharedHead(nn.Module):
    """Both tasks read the output of one head, so that they conflict wherever their labels differ."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({"a": head, "b": head})

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        output = self.heads["a"](self.encoder(inputs))
        return {"a": output, "b": output}


def diagnosed(relation: str, seed: int) -> pt.Diagnosis:
    """The diagnosis of two tasks with a known relation."""
    images, left, above, make = scenes()
    torch.manual_seed(seed)
    full = make()
    kind = relation.partition(",")[0]
    encoder, heads = cast("nn.Module", full.encoder), cast("nn.ModuleDict", full.heads)
    model = (
        SharedHead(encoder, heads[LEFT])
        if "contradicting" in kind
        else MultiTaskModel(encoder, {"a": heads[LEFT], "b": heads[ABOVE]})
    )
    second = {"contradicting": 1 - left, "half contradicting": left ^ above, "independent": above, "equal": left}[kind]
    scale = 100.0 if "unlike" in relation else 1.0
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(SAMPLES, generator=generator) for _ in range(4)])
    parts = [part for part in order.split(BATCH) if len(part) == BATCH]

    def losses_of(model: nn.Module, index: Tensor) -> dict[str, Tensor]:
        outputs = model(images[index])
        return {
            "a": functional.cross_entropy(outputs["a"], left[index]),
            "b": scale * functional.cross_entropy(outputs["b"], second[index]),
        }

    return pt.diagnose(model, losses_of, parts, measured=12, warmup=30)
