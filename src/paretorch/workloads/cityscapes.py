"""Cityscapes: classes, inverse depth and offsets to the centres of objects, of each pixel of street scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from paretorch.workloads.base import Workload
from paretorch.workloads.checks.data_report import DataReport, Progress
from paretorch.workloads.checks.scene_reports import report_arrays, report_cities
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.dense.losses import dense_losses, labelled_count
from paretorch.workloads.dense.metrics import AbsoluteError, OffsetError, PixelAccuracy, RelativeError
from paretorch.workloads.dense.splits import SceneSplitting, scene_splits
from paretorch.workloads.formats.cityscapes import CITYSCAPES, KINDS, CityFolders, find_cityscapes
from paretorch.workloads.formats.dense_arrays import ArrayField, ArrayFolder, find_arrays
from paretorch.workloads.formats.locating import PublishedData
from paretorch.workloads.metrics import MeanIoU, Metric
from paretorch.workloads.models.dense import check_architecture, check_image_size, dense_model
from paretorch.workloads.streams import Plain, Splits

FORMS = ("arrays", "images")
PUBLISHED = {"train": 2975, "val": 500}
SIZE = (128, 256)
ARRAYS = PublishedData(
    "Cityscapes",
    "root",
    """\
cityscapes/{train,val}/image/0.npy    128 x 256 x 3 in 0..1, or bytes; 2,975 scenes in train, 500 in val
cityscapes/{train,val}/label/0.npy    128 x 256 classes 0 to 6; below 0 without label
cityscapes/{train,val}/depth/0.npy    128 x 256 x 1 inverse depths; 0 without label""",
    "The preprocessed arrays are published with MTAN (github.com/lorenmt/mtan)",
)


class DisparityError(AbsoluteError):
    """Mean absolute error of the disparity, in pixels of the photograph."""

    unit = "pixels"


@dataclass(frozen=True)
class Cityscapes(Workload):
    """Classes and inverse depth of 3,475 street scenes and, from the published images, offsets to the centres of objects.

    Splits and reports: :class:`.dense.splits.SceneSplitting`. The images' own test set has no public labels.

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
        form: ``"arrays"``: two tasks, 128 x 256, as MTAN publishes them; ``"images"``: three tasks, from the owner's archives.
        classes_of: number of classes of the segmentation: 7 or 19.
        height: pixels of the network's images, whose width is twice the height; only for ``"images"``.

    Example:
        >>> Cityscapes().tasks, Cityscapes(form="images", classes_of=19).tasks
        (('segmentation', 'depth'), ('segmentation', 'instance', 'depth'))

    References:
        Cordts et al., CVPR 2016; two tasks as Liu, Johns & Davison, CVPR 2019, three as Sener & Koltun, NeurIPS 2018. A zoom
        multiplies inverse depth here, MTAN's program divides it.
    """

    title = "streets (Cityscapes): classes, inverse depth, and object offsets; from arrays or the published images"
    files: ClassVar[str] = f"form='arrays':\n{ARRAYS.description}\n\nform='images':\n{CITYSCAPES.description}"
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 1e-4},
        "epochs": 200,
        "batch_size": 8,
        "schedule": "step(0.5, 100)",
    }

    root: str = "data"
    architecture: str = "mtan"
    width: float = 1.0
    encoder_weights: str = ""
    augmentation: str = "zoom"
    validation: float = 0.1
    report: str = "once"
    workers: int | None = None
    data_seed: int = 0
    form: str = "arrays"
    classes_of: int = 7
    height: int = 256

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        self._splitting  # noqa: B018 - checks its values
        if self.form not in FORMS:
            raise ValueError(f"cityscapes: form is one of {', '.join(FORMS)}, got {self.form!r}")
        if self.classes_of not in (7, 19):
            raise ValueError(f"cityscapes: classes_of is 7 or 19, got {self.classes_of}")
        if self.height < 32 or self.height % 8:
            raise ValueError(f"cityscapes: height is at least 32 and a multiple of 8, got {self.height}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``segmentation`` and ``depth``; ``instance`` between them, from the images."""
        return tuple(self.kinds)

    @property
    def kinds(self) -> Mapping[str, LabelKind]:
        """The kind of each task's labels."""
        return {task: kind for task, kind in KINDS.items() if self.form == "images" or task != "instance"}

    @property
    def _splitting(self) -> SceneSplitting:
        return SceneSplitting(
            "cityscapes", self.augmentation, self.validation, self.report, self.workers, self.data_seed
        )

    def source(self) -> ArrayFolder | CityFolders:
        """The arrays or images below the root.

        Raises:
            FileNotFoundError: they are missing or have another layout.
        """
        return self._arrays() if self.form == "arrays" else self._images()

    def require(self) -> None:
        """Checks that the data set is below the root; no file is opened."""
        self.source()

    def data(self) -> Splits:
        """One stream; see :func:`.dense.splits.scene_splits`."""
        return scene_splits(
            self.source(), self._splitting, self.encoder_weights, partial(check_image_size, self.architecture)
        )

    def model(self) -> nn.Module:
        """The architecture with a head for each task."""
        return dense_model(self.architecture, self.kinds, self.classes_of, self.width, self.encoder_weights)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy and absolute errors, over labelled pixels."""
        return dense_losses(self.kinds, outputs, targets)

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """The number of labelled pixels, or of coordinates for offsets."""
        return labelled_count(self.kinds[task], target)

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Mean IoU and pixel accuracy; absolute and relative error of the inverse depth; mean error of the offsets."""
        images = self.form == "images"
        made: dict[str, tuple[Metric, ...]] = {
            "segmentation": (MeanIoU(self.classes_of), PixelAccuracy()),
            "instance": (OffsetError(),),
            "depth": (DisparityError() if images else AbsoluteError(), RelativeError()),
        }
        return {task: made[task] for task in self.tasks}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the arrays or images below the root."""
        if self.form == "arrays":
            report = report_arrays(ARRAYS, self.root, self._arrays, PUBLISHED, SIZE, images, progress)
        else:
            report = report_cities(self.root, self._images, images, progress)
        report.attempt(self.data)
        return [report]

    def _arrays(self) -> ArrayFolder:
        fields = (
            ArrayField("segmentation", "label", LabelKind.CLASSES, self.classes_of),
            ArrayField("depth", "depth", LabelKind.INVERSE_DISTANCE),
        )
        return find_arrays(ARRAYS, Path(self.root), ("cityscapes",), fields)

    def _images(self) -> CityFolders:
        return find_cityscapes(Path(self.root), self.classes_of, self.height)
