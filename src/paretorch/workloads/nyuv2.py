"""Indoor scenes: what each pixel shows, how far away it is, and how the surface is turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paretorch.workloads.checks.checkup import Checkup, Tell, training_refuses
from paretorch.workloads.dense.labels import Kind
from paretorch.workloads.dense.metrics import AbsoluteError, PixelAccuracy, RelativeError, of_directions
from paretorch.workloads.dense.workload import DenseWorkload
from paretorch.workloads.formats.dense_arrays import ArrayFolder, Field, checked_arrays, find_arrays
from paretorch.workloads.metrics import MeanIoU, Metric
from paretorch.workloads.streams import Plain

CLASSES = 13
FIELDS = (
    Field("segmentation", "label", Kind.CLASSES, CLASSES),
    Field("depth", "depth", Kind.DISTANCE),
    Field("normals", "normal", Kind.DIRECTIONS),
)
PUBLISHED = {"train": 795, "val": 654}
SIZE = (288, 384)


class DepthError(AbsoluteError):
    """Mean absolute error over pixels with a measured depth."""

    unit = "m"


@dataclass(frozen=True)
class NYUv2(DenseWorkload):
    """Thirteen classes, depth in metres and surface normals of 1,449 indoor images.

    Options, splits and what is reported: :class:`.dense.workload.DenseWorkload`.

    Example:
        >>> NYUv2().tasks
        ('segmentation', 'depth', 'normals')

    References:
        Silberman et al., "Indoor segmentation and support inference from RGBD images", ECCV 2012; preprocessed by Liu, Johns &
        Davison, CVPR 2019. They zoom normals and images by interpolation, we zoom images so and take the nearest pixel's normal;
        they average metrics over batches, we over all pixels of the set.
    """

    title = "indoor scenes (NYUv2): 13 classes, depth, normals; SegNet with task attention; arrays on disk"
    name: ClassVar[str] = "nyuv2"
    files: ClassVar[str] = """\
nyuv2/{train,val}/image/0.npy    288 x 384 x 3 in 0..1, or bytes; 795 scenes in train, 654 in val
nyuv2/{train,val}/label/0.npy    288 x 384 classes 0 to 12; below 0 where there is none
nyuv2/{train,val}/depth/0.npy    288 x 384 x 1 metres; 0 where there is none
nyuv2/{train,val}/normal/0.npy   288 x 384 x 3 unit vectors, x to the right; zeros where there is none
The preprocessed arrays are published with MTAN (github.com/lorenmt/mtan)"""
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 1e-4},
        "epochs": 200,
        "batch_size": 2,
        "schedule": "step(0.5, 100)",
    }

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """Classes, distances, directions."""
        return {field.task: field.kind for field in FIELDS}

    @property
    def classes(self) -> int:
        """13."""
        return CLASSES

    def source(self) -> ArrayFolder:
        """The arrays below the root; see :meth:`.DenseWorkload.source`."""
        return find_arrays(Path(self.root), "NYUv2", ("nyu",), FIELDS, self.files)

    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What lies below the root, and which arrays cannot be read."""
        title = f"NYUv2, looked for below {self.root}:\n{self.files}"
        report = checked_arrays(title, self.source, PUBLISHED, SIZE, images, tell)
        return [training_refuses(report, self.data)]

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """The nine numbers of the literature: mean IoU, pixel accuracy; absolute and relative error; five of the angles."""
        return {
            "segmentation": (MeanIoU(CLASSES), PixelAccuracy()),
            "depth": (DepthError(), RelativeError()),
            "normals": of_directions(),
        }
