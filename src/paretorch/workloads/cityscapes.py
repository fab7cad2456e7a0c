"""Streets: what each pixel shows, where its object's middle is, and how far away it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paretorch.workloads.checks.checkup import Checkup, Tell, training_refuses
from paretorch.workloads.dense.labels import Kind
from paretorch.workloads.dense.metrics import AbsoluteError, OffsetError, PixelAccuracy, RelativeError
from paretorch.workloads.dense.workload import DenseWorkload
from paretorch.workloads.formats.cityscapes import KINDS, CityFolders, checked_cities, find_cityscapes
from paretorch.workloads.formats.dense_arrays import ArrayFolder, Field, checked_arrays, find_arrays
from paretorch.workloads.metrics import MeanIoU, Metric
from paretorch.workloads.streams import Plain

FORMS = ("arrays", "images")
PUBLISHED = {"train": 2975, "val": 500}
SIZE = (128, 256)
ARRAYS = """\
cityscapes/{train,val}/image/0.npy    128 x 256 x 3 in 0..1, or bytes; 2,975 scenes in train, 500 in val
cityscapes/{train,val}/label/0.npy    128 x 256 classes 0 to 6; below 0 where there is none
cityscapes/{train,val}/depth/0.npy    128 x 256 x 1 inverse depths; 0 where there is none
The preprocessed arrays are published with MTAN (github.com/lorenmt/mtan)"""
IMAGES = """\
cityscapes/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
cityscapes/gtFine/{train,val}/CITY/*_gtFine_labelIds.png and *_gtFine_instanceIds.png
cityscapes/disparity/{train,val}/CITY/*_disparity.png
Cityscapes is published at cityscapes-dataset.com, for those who register: leftImg8bit, gtFine and disparity, trainvaltest"""


class DisparityError(AbsoluteError):
    """Mean absolute error of the disparity, in pixels of the photograph."""

    unit = "pixels"


@dataclass(frozen=True)
class Cityscapes(DenseWorkload):
    """Classes and inverse depth of 3,475 street scenes, and, from the published images, offsets to the middles of objects.

    Options, splits and what is reported: :class:`.dense.workload.DenseWorkload`. The images' own test set has no public labels.

    Args:
        form: ``"arrays"``: two tasks, 128 x 256, as MTAN publishes them; ``"images"``: three tasks, from the owner's archives.
        classes_of: of the segmentation: 7 or 19.
        height: pixels of the network's images, which are twice as wide; of ``"images"`` only.

    Example:
        >>> Cityscapes().tasks, Cityscapes(form="images", classes_of=19).tasks
        (('segmentation', 'depth'), ('segmentation', 'instance', 'depth'))

    References:
        Cordts et al., CVPR 2016; two tasks as Liu, Johns & Davison, CVPR 2019, three as Sener & Koltun, NeurIPS 2018. Inverse
        depth grows with a zoom: it is multiplied, where MTAN's program divides it.
    """

    title = "streets (Cityscapes): classes, inverse depth, and object offsets; from arrays or the published images"
    name: ClassVar[str] = "cityscapes"
    files: ClassVar[str] = f"form='arrays':\n{ARRAYS}\n\nform='images':\n{IMAGES}"
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
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"cityscapes: form is one of {', '.join(FORMS)}, got {self.form!r}")
        if self.classes_of not in (7, 19):
            raise ValueError(f"cityscapes: classes_of is 7 or 19, got {self.classes_of}")
        if self.height < 32 or self.height % 8:
            raise ValueError(f"cityscapes: height is at least 32 and a multiple of 8, got {self.height}")

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """Classes and inverse distances; offsets between them, from the images."""
        return {task: kind for task, kind in KINDS.items() if self.form == "images" or task != "instance"}

    @property
    def classes(self) -> int:
        """7 or 19."""
        return self.classes_of

    def source(self) -> ArrayFolder | CityFolders:
        """The arrays or images below the root; see :meth:`.DenseWorkload.source`."""
        return self._arrays() if self.form == "arrays" else self._images()

    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What lies below the root, and which of it cannot be read."""
        title = f"Cityscapes, looked for below {self.root}:\n{ARRAYS if self.form == 'arrays' else IMAGES}"
        if self.form == "arrays":
            report = checked_arrays(title, self._arrays, PUBLISHED, SIZE, images, tell)
            return [training_refuses(report, self.data)]
        try:
            report = checked_cities(title, self._images(), images, tell)
        except (FileNotFoundError, ValueError) as error:
            report = Checkup(title, problems=[str(error)])
        return [training_refuses(report, self.data)]

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Mean IoU and pixel accuracy; absolute and relative error of the inverse depth; mean error of the offsets."""
        images = self.form == "images"
        made: dict[str, tuple[Metric, ...]] = {
            "segmentation": (MeanIoU(self.classes), PixelAccuracy()),
            "instance": (OffsetError(),),
            "depth": (DisparityError() if images else AbsoluteError(), RelativeError()),
        }
        return {task: made[task] for task in self.tasks}

    def _arrays(self) -> ArrayFolder:
        fields = (
            Field("segmentation", "label", Kind.CLASSES, self.classes),
            Field("depth", "depth", Kind.INVERSE_DISTANCE),
        )
        return find_arrays(Path(self.root), "Cityscapes", ("cityscapes",), fields, ARRAYS)

    def _images(self) -> CityFolders:
        return find_cityscapes(Path(self.root), self.classes, self.height, IMAGES)
