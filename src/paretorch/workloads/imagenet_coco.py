"""ImageNet's classes and COCO's objects as masks: each task has its own images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import Workload
from paretorch.workloads.formats.layout import find_coco, find_imagenet
from paretorch.workloads.formats.voc_masks import CLASSES
from paretorch.workloads.metrics import Accuracy, MeanIoU, Metric
from paretorch.workloads.models.two_heads import classification_and_segmentation
from paretorch.workloads.packs import writing as pack_writing
from paretorch.workloads.packs.pack import Manifest, Pack
from paretorch.workloads.packs.writing import Packed, stale
from paretorch.workloads.reading import geometry
from paretorch.workloads.reading.file_stream import FileStream
from paretorch.workloads.reading.geometry import stored_edge
from paretorch.workloads.reading.source import Place, Source
from paretorch.workloads.reading.splitting import Chosen, NotPackedError, everything, split
from paretorch.workloads.reading.stream import reading_processes
from paretorch.workloads.streams import Plain, Splits

TASKS = ("classification", "segmentation")
SPLITS = ("train", "validation", "test")
SOURCES = ("auto", "files", "pack")


@dataclass(frozen=True)
class ImagenetCoco(Workload):
    """Which of ``classes`` an ImageNet image shows, and the 21 classes of Pascal VOC on the pixels of a COCO image.

    Images are chosen by name and seed, as many of each class as of the others. Validation images are those of the
    folders ``val`` and ``val2017`` where they are there, and are held out of the training folders otherwise, which the
    record says; test images are always held out of the training folders. COCO images without an object of VOC's classes
    are background, and stay.

    Args:
        root: the folder in which ``imagenet``, ``coco`` and ``packed`` are looked for.
        imagenet: ImageNet's folder, where it lies elsewhere.
        coco: COCO's folder, where it lies elsewhere.
        pack: the folder of packs, where it lies elsewhere.
        source: ``"files"``, ``"pack"``, or ``"auto"``: the pack where it has all that is needed.
        classes: of ImageNet, the first by name.
        train: images of each task to train on.
        validation: images of each task to select on.
        test: images of each task to report on.
        size: pixels along one side of the network's input.
        augmentation: how a training image is drawn from its stored square of 9/8 of ``size``: ``"crop"`` takes a part as
            it is, ``"zoom"`` resizes a part of 0.35 to 1 of the area, both mirror every second image; ``"none"`` takes
            the middle.
        workers: processes that read, for each stream; by the number of cores where it is None. It changes no number.
        data_seed: decides which images are in which split; a run's seed does not.
        encoder: one of :data:`~.models.encoders.ENCODERS`.
        width: factor on the channels of the encoder and of the heads.
        stride: of the encoder: 32 as published, less for small images.
        decoder: of the masks, ``"narrow"`` or ``"wide"``; see :class:`~.models.image_heads.PixelHead`.
        encoder_weights: ``"torchvision"``, a file, or nothing for random ones.
    """

    title = "ImageNet classes and COCO masks, each task with its own images, read from your folders or a pack"

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

    def __post_init__(self) -> None:
        for name, least in {"classes": 2, "train": 1, "validation": 1, "test": 1, "size": 32}.items():
            if getattr(self, name) < least:
                raise ValueError(f"imagenet_coco: {name} is at least {least}, got {getattr(self, name)}")
        if self.size % 8:
            raise ValueError(f"imagenet_coco: size is a multiple of 8, got {self.size}")
        if self.source not in SOURCES:
            raise ValueError(f"imagenet_coco: source is one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"imagenet_coco: workers is at least 0, got {self.workers}")
        geometry.augmentation(self.augmentation)

    @property
    def tasks(self) -> tuple[str, ...]:
        """``classification`` and ``segmentation``."""
        return TASKS

    def data(self) -> Splits:
        """Two streams in each split: images (B, 3, size, size), bytes; classes (B,), masks (B, size, size).

        Raises:
            FileNotFoundError: a data set is not there, or lies otherwise.
            ValueError: fewer images than asked for, annotations that are not COCO's, or a pack that is damaged or out
                of date.
        """
        streams: dict[str, list[FileStream]] = {name: [] for name in SPLITS}
        facts: dict[str, Plain] = {}
        for task in TASKS:
            source, chosen = self._chosen(task)
            for name in SPLITS:
                streams[name].append(self._stream(task, name, source, chosen))
            facts[f"{task}, read from"] = streams["train"][-1].reader.kind
            facts[f"{task}, validation images"] = _origin(task, chosen.validation_from)
            facts[f"{task}, images"] = {name: len(chosen.parts[name]) for name in SPLITS}
        facts["encoder weights"] = self.encoder_weights or "random"
        if self.encoder_weights:
            facts["held out"] = "pretrained weights may have seen the ImageNet images that this run holds out"
        return Splits(tuple(streams["train"]), tuple(streams["validation"]), tuple(streams["test"]), facts)

    def model(self) -> nn.Module:
        """The encoder, a classifier on the mean of its last map, a decoder up to the image's own resolution."""
        return classification_and_segmentation(
            self.classes,
            len(CLASSES),
            self.size,
            name=self.encoder,
            width=self.width,
            stride=self.stride,
            decoder=self.decoder,
            weights=self.encoder_weights,
        )

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy over images, and over the pixels that are labelled."""
        losses = {}
        for task, output in outputs.items():
            target = targets[task]
            if bool((target >= 0).any()):
                losses[task] = functional.cross_entropy(output, target, ignore_index=-1)
        return losses

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy of the classes; mean intersection over union of the masks; both in 0..1."""
        return {"classification": (Accuracy(),), "segmentation": (MeanIoU(len(CLASSES)),)}

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """All images; of the masks, the pixels that are not ignored."""
        return size if task == "classification" else (target >= 0).sum()

    def require(self) -> None:
        """Fails where neither the folders nor a pack of them are there; opens no image.

        Raises:
            FileNotFoundError: says what was looked for, and how it must lie.
        """
        for task in TASKS:
            if self.source == "files" or not (self.pack_folder(task) / "pack.json").exists():
                self._files(task)

    def packed(
        self, folder: Path, *, whole: bool = False, tell: Callable[[str, int, int], None] | None = None
    ) -> list[Packed]:
        """Packs the images that this workload reads, for both tasks; see :func:`.pack_writing.pack`.

        Args:
            folder: of packs; each task has a folder in it.
            whole: all images that are there, instead of those that the options choose.
            tell: called with the task, its images packed and its images asked for.

        Raises:
            ValueError: too few images, too many that cannot be read, or a pack of something else.
            OSError: a data set is not there, the disk is full, or another process packs here.
        """
        done = []
        for task in TASKS:
            source = self._files(task)
            chosen = None if whole else self._split(task, source)
            places = everything(source) if chosen is None else _all_places(chosen)
            there = {
                name: dict(source.available(name))
                for name in ("train", "val")
                if source.has_validation or name == "train"
            }
            edge = stored_edge(self.size)
            wanted = Manifest(task, edge, task == "segmentation", self.data_seed, there, dict(source.fingerprint()))

            def told(images: int, total: int, task: str = task) -> None:
                if tell is not None:
                    tell(task, images, total)

            place = self.pack_folder(task, folder)
            workers = self.readers("image files")
            done.append(pack_writing.pack(source, places, place, wanted, workers=workers, tell=told))
        return done

    def pack_folder(self, task: str, folder: Path | None = None) -> Path:
        """Where the pack of a task lies."""
        folder = folder or Path(self.pack or Path(self.root) / "packed")
        return folder / f"{task}-{stored_edge(self.size)}"

    def _stream(self, task: str, name: str, source: Source, chosen: Chosen) -> FileStream:
        reader = source.reader(chosen.items(name, masks=task == "segmentation"), stored_edge(self.size))
        kind = geometry.augmentation(self.augmentation)
        return FileStream(task, name, reader, self.size, kind, self.readers(reader.kind))

    def _chosen(self, task: str) -> tuple[Source, Chosen]:
        """The source of a task's images and the images, from the pack if it has them all."""
        folder = self.pack_folder(task)
        if self.source == "files" or (self.source == "auto" and not (folder / "pack.json").exists()):
            source = self._files(task)
            return source, self._split(task, source)
        if not (folder / "pack.json").exists():
            raise FileNotFoundError(
                f"there is no pack in {folder}: `paretorch data pack` makes one, source='files' does without"
            )
        packed = Pack.open(folder)
        self._check_date(task, packed)
        try:
            return packed, self._split(task, packed)
        except NotPackedError as error:
            cure = "`paretorch data pack` with the same options adds what is missing"
            if self.source == "pack":
                raise ValueError(f"{error}: {cure}") from None
            warnings.warn(f"image files are read instead of the pack: {error}. {cure}", stacklevel=4)
        source = self._files(task)
        return source, self._split(task, source)

    def _split(self, task: str, source: Source) -> Chosen:
        sizes = {name: int(getattr(self, name)) for name in SPLITS}
        if isinstance(source, Pack):
            source.check_seed(self.data_seed)
        return split(source, sizes, self.data_seed, self.classes if task == "classification" else None)

    def _files(self, task: str) -> Source:
        root = Path(self.root)
        return find_imagenet(root, self.imagenet) if task == "classification" else find_coco(root, self.coco)

    def _check_date(self, task: str, packed: Pack) -> None:
        """A pack may be used without its source; where the source is there, it is what was packed."""
        try:
            now = self._files(task).fingerprint()
        except FileNotFoundError:
            return
        if dict(now) != dict(packed.fingerprint()):
            raise stale(packed.folder, packed.fingerprint(), now)

    def readers(self, kind: str) -> int:
        """How many processes read a stream of ``kind``: decoding takes one per core, a pack half as many."""
        return reading_processes(self.workers, decodes=kind == "image files")


def _all_places(chosen: Chosen) -> list[Place]:
    return [place for name in SPLITS for place in chosen.parts[name]]


def _origin(task: str, folder: str) -> str:
    name = {"classification": "val", "segmentation": "val2017"}[task]
    return f"of {name}" if folder == "val" else f"held out of the training images: there is no {name} of the right form"
