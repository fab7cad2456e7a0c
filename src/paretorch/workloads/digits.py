"""Two handwritten digits in one image, a small Multi-MNIST from the 1,797 digits that scikit-learn includes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.extras import extra
from paretorch.metrics import Accuracy, MeanAbsoluteError, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_fits, check_least
from paretorch.workloads.generated.overlays import Pairs, overlay
from paretorch.workloads.models import lenet
from paretorch.workloads.streams import Plain, Splits, Stream, TensorStream, combined_seed

LEVELS = 16  # the largest grey level: scikit-learn's digits count the dark pixels of 4 x 4 blocks
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}  # of the distinct digit images


@dataclass(frozen=True)
class Digits(Workload):
    """The class of the upper left digit, the class of the lower right digit and, optionally, the ink of the right digit.

    Each pixel of the image is the larger of the two digits' grey levels. The three splits use different digit images; within a
    split an image is in many pairs. The ink is the sum of the right digit's 64 grey levels, each in 0..16; its loss is the
    squared error in grey levels, hundreds of times as large as the cross-entropies.

    Args:
        ink: whether the third task is included.
        canvas: edge of the image in pixels; the 8 x 8 digits overlap in a square of ``16 - canvas``.
        train: number of training pairs.
        validation: number of validation pairs.
        test: number of test pairs.
        data_seed: decides the splits and the pairs, independently of a run's seed.

    Example:
        >>> Digits(ink=True).tasks
        ('left', 'right', 'ink')
    """

    title = "two overlaid real digits, 8 x 8 (scikit-learn, shipped); ink=True adds a loss of another scale"

    ink: bool = False
    canvas: int = 11
    train: int = 10_000
    validation: int = 2_000
    test: int = 2_000
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_least("digits", self, dict.fromkeys(SHARES, 1), "pair")
        check_least("digits", self, {"canvas": 8}, "pixels, the edge of a digit")
        pairs = self.train + self.validation + self.test
        check_fits("digits", pairs, 4 * self.canvas**2, "canvas, train, validation or test")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``left`` and ``right``, and optionally ``ink``."""
        return ("left", "right", "ink") if self.ink else ("left", "right")

    def data(self) -> Splits:
        """One stream of (B, 1, canvas, canvas) images in 0..1, classes (B,) and ink (B,) in grey levels."""
        streams: dict[str, tuple[Stream, ...]] = {}
        facts: dict[str, Plain] = {}
        for split in SHARES:
            pairs, distinct = self._pairs(split)
            targets = {"left": pairs.left, "right": pairs.right, "ink": pairs.ink}
            streams[split] = (TensorStream(pairs.images, {task: targets[task] for task in self.tasks}),)
            facts[f"distinct digits, {split}"] = distinct
            facts[f"pairs, {split}"] = len(pairs.images)
        return Splits(streams["train"], streams["validation"], streams["test"], facts)

    def model(self) -> nn.Module:
        """A small LeNet: features (B, 50), a head of one hidden layer per task."""
        heads: dict[str, nn.Module] = {"left": lenet.classifier(), "right": lenet.classifier()}
        if self.ink:
            ink = self._pairs("train")[0].ink
            heads["ink"] = lenet.Quantity(50, center=float(ink.mean()), spread=float(ink.std()))
        return MultiTaskModel(lenet.encoder(self.canvas), heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of the classes; squared error of the ink in grey levels squared."""
        return {
            task: functional.mse_loss(output, targets[task])
            if task == "ink"
            else functional.cross_entropy(output, targets[task])
            for task, output in outputs.items()
        }

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy of the classes in 0..1; mean absolute error of the ink in grey levels."""
        return {task: (MeanAbsoluteError("grey levels") if task == "ink" else Accuracy(),) for task in self.tasks}

    def _pairs(self, split: str) -> tuple[Pairs, int]:
        return _draw(split, getattr(self, split), self.canvas, self.data_seed)


@lru_cache(maxsize=6)
def _draw(split: str, count: int, canvas: int, seed: int) -> tuple[Pairs, int]:
    images, classes = _shipped()
    members = _members(len(images), seed)[split]
    key = combined_seed(seed, list(SHARES).index(split))
    return overlay(images[members], classes[members], count, canvas, LEVELS, key), len(members)


def _members(count: int, seed: int) -> dict[str, Tensor]:
    """A partition of the ``count`` digit images into the splits."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    sizes = [round(count * SHARES[split]) for split in ("train", "validation")]
    parts = torch.split(order, [*sizes, count - sum(sizes)])
    return dict(zip(SHARES, parts, strict=True))


@lru_cache(maxsize=1)
def _shipped() -> tuple[Tensor, Tensor]:
    """(1797, 8, 8) grey levels in 0..16 and (1797,) classes."""
    with extra("studies"):
        from sklearn.datasets import load_digits
    shipped = load_digits()
    return torch.from_numpy(shipped.images).float(), torch.from_numpy(shipped.target).long()
