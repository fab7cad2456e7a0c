"""What workloads of labelled pixels have in common: splits, losses, the model, and how scores are reported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from paretorch.workloads.base import Workload
from paretorch.workloads.checks.checkup import Checkup, Tell
from paretorch.workloads.dense import losses as dense_losses
from paretorch.workloads.dense.labels import Kind, check_augmentation
from paretorch.workloads.dense.stream import DenseStream, SceneReader
from paretorch.workloads.models.dense import check_architecture, check_suits, dense_model
from paretorch.workloads.reading.selection import held_out
from paretorch.workloads.reading.stream import reading_processes
from paretorch.workloads.streams import Plain, Splits

REPORTS = {"once": 0, "last-10": 10}  # epochs over which test scores are averaged


class SceneSource(Protocol):
    """A data set of scenes in two parts, ``train`` and ``val``."""

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of a part, in their order."""
        ...

    def reader(self, part: str, names: Sequence[str]) -> SceneReader:
        """What reads some of them."""
        ...

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of a part's scenes."""
        ...


@dataclass(frozen=True)
class DenseWorkload(Workload):
    """Scenes of a published data set, each pixel labelled for all tasks.

    Validation scenes are held out of ``train``, by name and seed; ``val`` is the test set, and is read once, after training.
    ``report="last-10"`` is the custom of the literature instead: all of ``train`` is trained on, the test set is scored after
    each epoch, and the mean of the last ten is reported; then nothing may be selected by it.

    Args:
        root: the folder in which the data set's folder is looked for, or which is it.
        architecture: ``"mtan"``, ``"segnet"`` or ``"dilated_resnet50"``; see :func:`.models.dense.dense_model`.
        width: factor on the channels.
        encoder_weights: of the ResNet: ``"torchvision"``, a file, or nothing for random ones.
        augmentation: of training scenes, see :func:`.dense_labels.augmented`.
        validation: share of the training scenes that is held out.
        report: ``"once"`` or ``"last-10"``.
        workers: processes that read; by the number of cores where it is None. It changes no number.
        data_seed: decides which scenes are held out; a run's seed does not.
    """

    name: ClassVar[str]  # of the workload, for messages

    root: str = "data"
    architecture: str = "mtan"
    width: float = 1.0
    encoder_weights: str = ""
    augmentation: str = "zoom"
    validation: float = 0.1
    report: str = "once"
    workers: int | None = None
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        if check_augmentation(self.augmentation) == "rotate" and Kind.DIRECTIONS in self.kinds.values():
            raise ValueError(f"{self.name}: directions are not rotated; augmentation is 'zoom', 'flip' or 'none'")
        if not 0 < self.validation < 1:
            raise ValueError(
                f"{self.name}: validation is a share of the training scenes, above 0 and below 1, got {self.validation}"
            )
        if self.report not in REPORTS:
            raise ValueError(f"{self.name}: report is one of {', '.join(REPORTS)}, got {self.report!r}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"{self.name}: workers is at least 0, got {self.workers}")

    @property
    @abstractmethod
    def kinds(self) -> Mapping[str, Kind]:
        """What the labels of each task mean."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Of the segmentation."""

    @abstractmethod
    def source(self) -> SceneSource:
        """The data set below the root.

        Raises:
            FileNotFoundError: it is not there, or lies otherwise; the message says what was looked for and what was found.
        """

    @abstractmethod
    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What lies below the root, and which of it cannot be read; see :class:`.checkup.Checkable`."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order of :attr:`kinds`."""
        return tuple(self.kinds)

    def data(self) -> Splits:
        """One stream: images (B, 3, H, W) in 0..1, and the labels of each task (:mod:`~paretorch.workloads.dense.labels`).

        Raises:
            FileNotFoundError: the data set is not there, or lies otherwise.
            ValueError: arrays are missing, or the images do not suit the architecture.
        """
        source = self.source()
        train, test = source.names("train"), source.names("val")
        last = REPORTS[self.report]
        if last:
            chosen = {"train": train, "validation": test, "test": test}
        else:
            kept, held = held_out(train, self.validation, self.data_seed)
            chosen = {"train": kept, "validation": held, "test": test}
        streams = {split: self._stream(source, split, names, last) for split, names in chosen.items()}
        height, width = source.size("train")
        facts: dict[str, Plain] = {
            "scenes": {split: len(names) for split, names in chosen.items() if not (last and split == "validation")},
            "pixels": f"{height} x {width}",
            "validation scenes": "none: what is called validation is the test set, after each epoch"
            if last
            else f"held out of train by name, data_seed={self.data_seed}",
            "test scores": f"mean of the last {last} epochs; nothing was selected by them"
            if last
            else "read once, last weights",
            "encoder weights": self.encoder_weights or "random",
        }
        return Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts, test_epochs=last)

    def model(self) -> nn.Module:
        """The architecture with a head for each task."""
        return dense_model(self.architecture, self.kinds, self.classes, self.width, self.encoder_weights)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, absolute error, or one minus the cosine, over labelled pixels."""
        return dense_losses.losses(self.kinds, outputs, targets)

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """The pixels that are labelled; coordinates of offsets."""
        return dense_losses.labelled(self.kinds[task], target)

    def require(self) -> None:
        """Fails where the data set is not below the root; opens no file.

        Raises:
            FileNotFoundError: says what was looked for, and how it must lie.
        """
        self.source()

    def _stream(self, source: SceneSource, split: str, names: tuple[str, ...], last: int) -> DenseStream:
        part = "train" if split == "train" or (split == "validation" and not last) else "val"
        check_suits(self.architecture, source.size(part))
        reader = source.reader(part, names)
        workers = reading_processes(self.workers, decodes=reader.kind == "image files")
        return DenseStream(f"{self.name}, {split}", reader, check_augmentation(self.augmentation), workers)
