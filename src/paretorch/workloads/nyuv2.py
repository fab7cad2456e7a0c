"""NYUv2: classes, depth and surface normals of each pixel of indoor scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from paretorch.metrics import AbsoluteError, MeanIoU, Metric, PixelAccuracy, RelativeError, direction_metrics
from paretorch.workloads.base import Workload
from paretorch.workloads.checks.data_report import DataReport, Progress
from paretorch.workloads.checks.scene_reports import report_arrays
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.dense.losses import dense_losses, labelled_count
from paretorch.workloads.dense.splits import SceneOptions, check_splitting, scene_splits
from paretorch.workloads.formats.dense_arrays import ArrayField, ArrayFolder, find_arrays
from paretorch.workloads.formats.locating import PublishedData
from paretorch.workloads.models.dense import check_architecture, check_image_size, dense_model
from paretorch.workloads.streams import Plain, Splits

NYUV2 = PublishedData(
    "NYUv2",
    "root",
    """\
nyuv2/{train,val}/image/0.npy    288 x 384 x 3 in 0..1, or bytes; 795 scenes in train, 654 in val
nyuv2/{train,val}/label/0.npy    288 x 384 classes 0 to 12; below 0 without label
nyuv2/{train,val}/depth/0.npy    288 x 384 x 1 metres; 0 without label
nyuv2/{train,val}/normal/0.npy   288 x 384 x 3 unit vectors, x to the right; zeros without label""",
    "The preprocessed arrays are published with MTAN (github.com/lorenmt/mtan)",
)
CLASSES = 13
FIELDS = (
    ArrayField("segmentation", "label", LabelKind.CLASSES, CLASSES),
    ArrayField("depth", "depth", LabelKind.DISTANCE),
    ArrayField("normals", "normal", LabelKind.DIRECTIONS),
)
KINDS = {field.task: field.kind for field in FIELDS}
PUBLISHED = {"train": 795, "val": 654}
SIZE = (288, 384)


@dataclass(frozen=True)
class NYUv2(SceneOptions, Workload):
    """Thirteen classes, depth in metres and surface normals of 1,449 indoor images.

    Options, splits and reports: :class:`.dense.splits.SceneOptions`.

    Example:
        >>> NYUv2().tasks
        ('segmentation', 'depth', 'normals')

    References:
        Silberman et al., "Indoor segmentation and support inference from RGBD images", ECCV 2012; preprocessed by Liu, Johns &
        Davison, CVPR 2019. Their zoom interpolates images and normals, here images are interpolated and the nearest pixel's
        normal is taken; they average metrics over batches, here they are computed over all pixels of the set.
    """

    title = "indoor scenes (NYUv2): 13 classes, depth, normals; SegNet with task attention; arrays on disk"
    files: ClassVar[str] = NYUV2.description
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 1e-4},
        "epochs": 200,
        "batch_size": 2,
        "schedule": "step(0.5, 100)",
    }

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        check_splitting("nyuv2", self)
        if self.augmentation == "rotate":
            raise ValueError("nyuv2: directions are not rotated; augmentation is 'zoom', 'flip' or 'none'")

    @property
    def tasks(self) -> tuple[str, ...]:
        """``segmentation``, ``depth`` and ``normals``."""
        return tuple(KINDS)

    def source(self) -> ArrayFolder:
        """The arrays below the root.

        Raises:
            FileNotFoundError: they are missing or have another layout.
        """
        return find_arrays(NYUV2, Path(self.root), ("nyu",), FIELDS)

    def require(self) -> None:
        """Checks that the data set is below the root; no file is opened."""
        self.source()

    def data(self) -> Splits:
        """One stream; see :func:`.dense.splits.scene_splits`."""
        return scene_splits(self.source(), "nyuv2", self, check_image_size)

    def model(self) -> nn.Module:
        """The architecture with a head for each task."""
        return dense_model(self.architecture, KINDS, CLASSES, self.width, self.encoder_weights)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, absolute error, and one minus the cosine, over labelled pixels."""
        return dense_losses(KINDS, outputs, targets)

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """The number of labelled pixels."""
        return labelled_count(KINDS[task], target)

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """The nine metrics of the literature: mean IoU, pixel accuracy; absolute and relative error; five of the angles."""
        return {
            "segmentation": (MeanIoU(CLASSES), PixelAccuracy()),
            "depth": (AbsoluteError("m"), RelativeError()),
            "normals": direction_metrics(),
        }

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the arrays below the root."""
        report = report_arrays(NYUV2, self.root, self.source, PUBLISHED, SIZE, images, progress)
        report.attempt(self.data)
        return [report]
