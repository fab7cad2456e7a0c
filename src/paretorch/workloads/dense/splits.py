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
class SceneSplitting:
    """How the scenes of a data set are divided and read.

    Validation scenes are held out of ``train``, by name and seed; ``val`` is the test set, which is read once, after training.
    With ``report="last-10"``, as in the literature, all of ``train`` is used for training, the test set is evaluated after each
    epoch, and the mean of the last ten evaluations is reported; nothing may then be selected by it.

    Args:
        workload: its name, for messages.
        augmentation: of training scenes, see :func:`.dense.labels.augmented`.
        validation: share of the training scenes that is held out.
        report: ``"once"`` or ``"last-10"``.
        workers: number of processes that read; by the number of cores if None.
        data_seed: decides which scenes are held out.

    Raises:
        ValueError: a value is invalid.
    """

    workload: str
    augmentation: str
    validation: float
    report: str
    workers: int | None
    data_seed: int

    def __post_init__(self) -> None:
        check_augmentation(self.augmentation)
        if not 0 < self.validation < 1:
            raise ValueError(
                f"{self.workload}: validation is a share of the training scenes, above 0 and below 1, got {self.validation}"
            )
        if self.report not in REPORTS:
            raise ValueError(f"{self.workload}: report is one of {', '.join(REPORTS)}, got {self.report!r}")
        check_least(self.workload, self, {"workers": 0})


def scene_splits(
    source: SceneSource,
    splitting: SceneSplitting,
    encoder_weights: str,
    check_size: Callable[[tuple[int, int]], None],
) -> Splits:
    """One stream per split: images (B, 3, H, W) in 0..1, and the labels of each task (:mod:`~paretorch.workloads.dense.labels`).

    Args:
        source: the data set.
        splitting: how it is divided and read.
        encoder_weights: for the record.
        check_size: raises ValueError if the model cannot be applied to images of (H, W) pixels.

    Raises:
        ValueError: arrays are missing, or ``check_size`` raises it.
    """
    train, test = source.names("train"), source.names("val")
    last = REPORTS[splitting.report]
    if last:
        selected = {"train": ("train", train), "validation": ("val", test), "test": ("val", test)}
    else:
        kept, held = hold_out(train, splitting.validation, splitting.data_seed)
        selected = {"train": ("train", kept), "validation": ("train", held), "test": ("val", test)}
    streams = {}
    for split, (part, names) in selected.items():
        check_size(source.size(part))
        sampler = SceneSampler(source.reader(part, names), check_augmentation(splitting.augmentation))
        workers = worker_count(splitting.workers, decodes=sampler.kind == "image files")
        streams[split] = ReadStream(f"{splitting.workload}, {split}", sampler, workers)
    height, width = source.size("train")
    facts: dict[str, Plain] = {
        "scenes": {split: len(names) for split, (_, names) in selected.items() if not (last and split == "validation")},
        "pixels": f"{height} x {width}",
        "validation scenes": f"held out of train by name, data_seed={splitting.data_seed}",
        "test scores": "read once, last weights",
        "encoder weights": encoder_weights or "random",
    }
    if last:
        facts["validation scenes"] = "none: what is called validation is the test set, after each epoch"
        facts["test scores"] = f"mean of the last {last} epochs; nothing was selected by them"
    return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts, test_epochs=last)
