"""Cityscapes: classes, inverse depth and offsets to the centres of objects, of each pixel of street scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from paretorch.metrics import AbsoluteError, MeanIoU, Metric, OffsetError, PixelAccuracy, RelativeError
from paretorch.workloads.base import Workload
from paretorch.workloads.checks.data_report import DataReport, Progress
from paretorch.workloads.checks.scene_reports import report_arrays, report_cities
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.dense.losses import dense_losses, labelled_count
from paretorch.workloads.dense.splits import SceneOptions, check_splitting, scene_splits
from paretorch.workloads.formats.cityscapes import CITYSCAPES, KINDS, CityFolders, find_cityscapes
from paretorch.workloads.formats.dense_arrays import ArrayField, ArrayFolder, find_arrays
from paretorch.workloads.formats.locating import PublishedData
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


@dataclass(frozen=True)
class Cityscapes(SceneOptions, Workload):
    """Classes and inverse depth of 3,475 street scenes and, from the published images, offsets to the centres of objects.

    Other options, splits and reports: :class:`.dense.splits.SceneOptions`. The images' own test set has no public labels.

    Args:
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

    form: str = "arrays"
    classes_of: int = 7
    height: int = 256

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        check_splitting("cityscapes", self)
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
        return scene_splits(self.source(), "cityscapes", self, check_image_size)

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
        unit = "pixels" if self.form == "images" else ""  # of the photograph
        made: dict[str, tuple[Metric, ...]] = {
            "segmentation": (MeanIoU(self.classes_of), PixelAccuracy()),
            "instance": (OffsetError(),),
            "depth": (AbsoluteError(unit), RelativeError()),
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
