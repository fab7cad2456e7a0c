"""Splits of a data set of labelled scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paretorch.workloads.base import check_least
from paretorch.workloads.dense.labels import check_augmentation
from paretorch.workloads.dense.scene_sampler import SceneReader, SceneSampler
from paretorch.workloads.loading.read_stream import ReadStream, worker_count
from paretorch.workloads.loading.selection import hold_out
from paretorch.workloads.streams import Plain, Splits

REPORTS = {"once": 0, "last-10": 10}  # number of epochs over which test scores are averaged


class SceneSource(Protocol):
    """A data set of scenes in two parts, ``train`` and ``val``."""

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of a part, in their order."""
        ...

    def reader(self, part: str, names: Sequence[str]) -> SceneReader:
        """A reader of selected scenes."""
        ...

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of a part's scenes."""
        ...


@dataclass(frozen=True)
class SceneOptions:
    """Options of a workload of labelled scenes: where they are stored, the model, how they are divided and read.

    Validation scenes are held out of ``train``, by name and seed; ``val`` is the test set, which is read once, after training.
    With ``report="last-10"``, as in the literature, all of ``train`` is used for training, the test set is evaluated after each
    epoch, and the mean of the last ten evaluations is reported; nothing may then be selected by it.

    Args:
        root: the folder in which the data set's folder is searched for, or the data set's folder.
        architecture: ``"mtan"``, ``"segnet"`` or ``"dilated_resnet50"``; see :func:`.models.dense.dense_model`.
        width: factor on the channels.
        encoder_weights: of the ResNet: ``"torchvision"``, a file, or empty for random ones.
        augmentation: of training scenes, see :func:`.dense.labels.augmented`.
        validation: share of the training scenes that is held out.
        report: ``"once"`` or ``"last-10"``.
        workers: processes that read; by the number of cores if None. It does not affect the results.
        data_seed: decides which scenes are held out, independently of a run's seed.
    """

    root: str = "data"
    architecture: str = "mtan"
    width: float = 1.0
    encoder_weights: str = ""
    augmentation: str = "zoom"
    validation: float = 0.1
    report: str = "once"
    workers: int | None = None
    data_seed: int = 0


def check_splitting(workload: str, options: SceneOptions) -> None:
    """Checks how scenes are divided and read.

    Raises:
        ValueError: an option is invalid.
    """
    check_augmentation(options.augmentation)
    if not 0 < options.validation < 1:
        raise ValueError(
            f"{workload}: validation is a share of the training scenes, above 0 and below 1, got {options.validation}"
        )
    if options.report not in REPORTS:
        raise ValueError(f"{workload}: report is one of {', '.join(REPORTS)}, got {options.report!r}")
    check_least(workload, options, {"workers": 0})


def scene_splits(
    source: SceneSource, workload: str, options: SceneOptions, check_size: Callable[[str, tuple[int, int]], None]
) -> Splits:
    """One stream per split: images (B, 3, H, W) in 0..1, and the labels of each task (:mod:`~paretorch.workloads.dense.labels`).

    Args:
        source: the data set.
        workload: its name, for messages.
        options: how it is divided and read.
        check_size: raises ValueError if an architecture cannot be applied to images of (H, W) pixels.

    Raises:
        ValueError: arrays are missing, or ``check_size`` raises it.
    """
    train, test = source.names("train"), source.names("val")
    last = REPORTS[options.report]
    if last:
        selected = {"train": ("train", train), "validation": ("val", test), "test": ("val", test)}
    else:
        kept, held = hold_out(train, options.validation, options.data_seed)
        selected = {"train": ("train", kept), "validation": ("train", held), "test": ("val", test)}
    streams = {}
    for split, (part, names) in selected.items():
        check_size(options.architecture, source.size(part))
        sampler = SceneSampler(source.reader(part, names), check_augmentation(options.augmentation))
        streams[split] = ReadStream(f"{workload}, {split}", sampler, worker_count(options.workers, sampler.kind))
    height, width = source.size("train")
    facts: dict[str, Plain] = {
        "scenes": {split: len(names) for split, (_, names) in selected.items() if not (last and split == "validation")},
        "pixels": f"{height} x {width}",
        "validation scenes": f"held out of train by name, data_seed={options.data_seed}",
        "test scores": "read once, last weights",
        "encoder weights": options.encoder_weights or "random",
    }
    if last:
        facts["validation scenes"] = "none: what is called validation is the test set, after each epoch"
        facts["test scores"] = f"mean of the last {last} epochs; nothing was selected by them"
    return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts, test_epochs=last)
