"""ImageNet's classes, and masks and optionally boxes of COCO's objects; classes have images of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import Accuracy, MeanIoU, Metric
from paretorch.workloads.base import Workload, check_least
from paretorch.workloads.detection.average_precision import AveragePrecision
from paretorch.workloads.detection.losses import center_loss, object_count
from paretorch.workloads.formats.coco import find_coco
from paretorch.workloads.formats.imagenet import find_imagenet
from paretorch.workloads.formats.voc_masks import CLASSES
from paretorch.workloads.loading.image_crops import check_augmentation, stored_edge
from paretorch.workloads.loading.image_samplers import SquareSampler
from paretorch.workloads.loading.image_source import ImageSource
from paretorch.workloads.loading.image_splits import ImageSplits, NotPackedError, all_images, split_images
from paretorch.workloads.loading.read_stream import ReadStream, worker_count
from paretorch.workloads.models.two_heads import classification_and_segmentation
from paretorch.workloads.packs.pack import Manifest, Pack
from paretorch.workloads.packs.writing import PackResult, outdated_error, pack_images
from paretorch.workloads.streams import SPLITS, Plain, Splits

TASKS = ("classification", "segmentation")
SOURCES = ("auto", "files", "pack")


@dataclass(frozen=True)
class ImagenetCoco(Workload):
    """The class of an ImageNet image, and the 21 classes of Pascal VOC on the pixels of a COCO image.

    Images are selected by name and seed, equally many of each class. Validation images are those of the folders ``val`` and
    ``val2017`` if they exist, and are held out of the training folders otherwise, which the record states; test images are
    always held out of the training folders. COCO images without an object of VOC's classes are background, and are used.

    Args:
        root: the folder in which ``imagenet``, ``coco`` and ``packed`` are searched for.
        imagenet: ImageNet's own folder, if not empty.
        coco: COCO's own folder, if not empty.
        pack: the folder of packs, if not empty.
        source: ``"files"``, ``"pack"``, or ``"auto"``: the pack if it has all images.
        classes: number of ImageNet's classes, the first by name.
        train: number of training images of each task.
        validation: number of validation images of each task.
        test: number of test images of each task.
        size: pixels along one side of the network's input.
        augmentation: how a training image is drawn from its stored square of 9/8 of ``size``: ``"crop"`` takes a part without
            resizing, ``"zoom"`` resizes a part of 0.35 to 1 of the area, both mirror with probability 1/2; ``"none"`` takes the
            middle.
        workers: processes that read, for each stream; by the number of cores if None. It does not affect the results.
        data_seed: decides the splits, independently of a run's seed.
        encoder: one of :data:`~.models.encoders.NAMES`.
        width: factor on the channels of the encoder and of the heads.
        stride: of the encoder: 32 as published, a smaller one for small images.
        decoder: of the masks, ``"narrow"`` or ``"wide"``; see :class:`~.models.image_heads.PixelHead`.
        encoder_weights: ``"torchvision"``, a file, or empty for random ones.
        detection: whether the task ``detection`` is included: boxes of the objects of VOC's 20 classes in the COCO images, found
            by their centres. The boxes are read from COCO's annotations, also if the images are read from a pack.
    """

    title = "ImageNet classes and COCO masks, each task with its own images, read from your folders or a pack"
    protocol: ClassVar[Mapping[str, Plain]] = {
        "surface": "parameters"
    }  # features of different images cannot be compared

    root: str = "data"
    imagenet: str = ""
    coco: str = ""
    pack: str = ""
    source: str = "auto"
    classes: int = 100
    train: int = 50_000
    validation: int = 5_000
    test: int = 5_000
    size: int = 256
    augmentation: str = "crop"
    workers: int | None = None
    data_seed: int = 0
    encoder: str = "mobilenet_v3_large"
    width: float = 1.0
    stride: int = 32
    decoder: str = "narrow"
    encoder_weights: str = ""
    detection: bool = False

    def __post_init__(self) -> None:
        check_least(
            "imagenet_coco", self, {"classes": 2, "train": 1, "validation": 1, "test": 1, "size": 32, "workers": 0}
        )
        if self.size % 8:
            raise ValueError(f"imagenet_coco: size is a multiple of 8, got {self.size}")
        if self.source not in SOURCES:
            raise ValueError(f"imagenet_coco: source is one of {', '.join(SOURCES)}, got {self.source!r}")
        check_augmentation(self.augmentation)

    @property
    def tasks(self) -> tuple[str, ...]:
        """``classification`` and ``segmentation``, and optionally ``detection``."""
        return (*TASKS, "detection") if self.detection else TASKS

    def data(self) -> Splits:
        """Two streams in each split: images (B, 3, size, size), bytes; classes (B,); masks (B, size, size), objects (B, K, 5).

        Raises:
            FileNotFoundError: a data set is missing or has another layout.
            ValueError: there are fewer images than the options require, the annotations are not COCO's, or a pack is damaged or
                out of date.
        """
        streams: dict[str, list[ReadStream]] = {name: [] for name in SPLITS}
        facts: dict[str, Plain] = {}
        for task in TASKS:
            source, splits = self._selected(task)
            for name in SPLITS:
                streams[name].append(self._stream(task, name, source, splits))
            facts[f"{task}, read from"] = streams["train"][-1].sampler.kind
            facts[f"{task}, validation images"] = _origin(task, splits.validation_from)
            facts[f"{task}, images"] = {name: len(splits.parts[name]) for name in SPLITS}
        facts["encoder weights"] = self.encoder_weights or "random"
        if self.encoder_weights:
            facts["held out"] = "pretrained weights may have seen the ImageNet images that this run holds out"
        return Splits(tuple(streams["train"]), tuple(streams["validation"]), tuple(streams["test"]), facts)

    def model(self) -> nn.Module:
        """The encoder, a classifier on the mean of its last map, a decoder up to the image's own resolution, a center head."""
        return classification_and_segmentation(
            self.classes,
            len(CLASSES),
            self.size,
            name=self.encoder,
            width=self.width,
            stride=self.stride,
            decoder=self.decoder,
            weights=self.encoder_weights,
            objects=len(CLASSES) - 1 if self.detection else 0,
        )

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy over images, and over labelled pixels; :func:`.detection.losses.center_loss` over objects."""
        losses = {}
        for task, output in outputs.items():
            target = targets[task]
            if task == "detection":
                loss = center_loss(output, target)
                if loss is not None:
                    losses[task] = loss
            elif bool((target >= 0).any()):
                losses[task] = functional.cross_entropy(output, target, ignore_index=-1)
        return losses

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy of the classes; mean intersection over union of the masks; average precision of the boxes; all in 0..1."""
        made: dict[str, tuple[Metric, ...]] = {
            "classification": (Accuracy(),),
            "segmentation": (MeanIoU(len(CLASSES)),),
            "detection": (AveragePrecision(), AveragePrecision((0.5,))),
        }
        return {task: made[task] for task in self.tasks}

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """All images; the labelled pixels of the masks; the objects."""
        if task == "detection":
            return object_count(target)
        return size if task == "classification" else (target >= 0).sum()

    def require(self) -> None:
        """Checks that the folders or packs of them exist; no image is opened.

        Raises:
            FileNotFoundError: they are missing; the message has the expected layout.
        """
        for task in TASKS:
            with_boxes = self.detection and task == "segmentation"  # which a pack does not contain
            if with_boxes or self.source == "files" or not (self.pack_folder(task) / "pack.json").exists():
                self._files(task)

    def packed(
        self, folder: Path, *, whole: bool = False, progress: Callable[[str, int, int], None] | None = None
    ) -> list[PackResult]:
        """Packs the images of both tasks; see :func:`.packs.writing.pack_images`.

        Args:
            folder: of packs; each task has a folder in it.
            whole: pack all images, instead of those that the options select.
            progress: called with the task, the images packed and the images to pack.

        Raises:
            ValueError: there are too few images or too many unreadable ones, or the folder has a pack of other data.
            OSError: a data set is missing, the disk is full, or another process packs into the folder.
        """
        results = []
        for task in TASKS:
            source = self._files(task)
            if whole:
                images = all_images(source)
            else:
                splits = self._split(task, source)
                images = tuple(image for name in SPLITS for image in splits.parts[name])
            folders = ("train", "val") if source.has_validation else ("train",)
            available = {name: dict(source.available(name)) for name in folders}
            edge, masks = stored_edge(self.size), task == "segmentation"
            wanted = Manifest(task, edge, masks, self.data_seed, available, dict(source.fingerprint()))
            location, workers = self.pack_folder(task, folder), worker_count(self.workers, "image files")
            task_progress = None if progress is None else partial(progress, task)
            results.append(pack_images(source, images, location, wanted, workers=workers, progress=task_progress))
        return results

    def pack_folder(self, task: str, folder: Path | None = None) -> Path:
        """The folder of a task's pack."""
        folder = folder or Path(self.pack or Path(self.root) / "packed")
        return folder / f"{task}-{stored_edge(self.size)}"

    def _stream(self, task: str, name: str, source: ImageSource, splits: ImageSplits) -> ReadStream:
        items = splits.items(name, masks=task == "segmentation")
        reader = source.reader(items, stored_edge(self.size))
        boxes = find_coco(Path(self.root), self.coco).boxes(items) if self.detection and task == "segmentation" else ()
        sampler = SquareSampler(task, reader, self.size, check_augmentation(self.augmentation), boxes)
        return ReadStream(f"{task}, {name}", sampler, worker_count(self.workers, reader.kind))

    def _selected(self, task: str) -> tuple[ImageSource, ImageSplits]:
        """The source of a task's images and its splits, the pack if it has all images."""
        folder = self.pack_folder(task)
        if self.source == "files" or (self.source == "auto" and not (folder / "pack.json").exists()):
            source = self._files(task)
            return source, self._split(task, source)
        if not (folder / "pack.json").exists():
            raise FileNotFoundError(
                f"there is no pack in {folder}: `paretorch data pack` makes one, source='files' does not need it"
            )
        packed = Pack.open(folder)
        self._check_fingerprint(task, packed)
        try:
            return packed, self._split(task, packed)
        except NotPackedError as error:
            cure = "`paretorch data pack` with the same options adds the missing images"
            if self.source == "pack":
                raise ValueError(f"{error}: {cure}") from None
            warnings.warn(f"image files are read instead of the pack: {error}. {cure}", stacklevel=4)
        source = self._files(task)
        return source, self._split(task, source)

    def _split(self, task: str, source: ImageSource) -> ImageSplits:
        sizes = {name: int(getattr(self, name)) for name in SPLITS}
        if isinstance(source, Pack):
            source.check_seed(self.data_seed)
        return split_images(source, sizes, self.data_seed, self.classes if task == "classification" else None)

    def _files(self, task: str) -> ImageSource:
        root = Path(self.root)
        return find_imagenet(root, self.imagenet) if task == "classification" else find_coco(root, self.coco)

    def _check_fingerprint(self, task: str, packed: Pack) -> None:
        """Checks that a pack was made from the data set as it is now, if the data set exists."""
        try:
            now = self._files(task).fingerprint()
        except FileNotFoundError:
            return
        if dict(now) != dict(packed.fingerprint()):
            raise outdated_error(packed.folder, packed.fingerprint(), now)


def _origin(task: str, folder: str) -> str:
    name = {"classification": "val", "segmentation": "val2017"}[task]
    return (
        f"of {name}"
        if folder == "val"
        else f"held out of the training images: there is no {name} with the expected layout"
    )
