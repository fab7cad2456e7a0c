"""Office-31 and Office-Home: the class of an object in photographs of several domains, each domain a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import Accuracy, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_head_names, check_least
from paretorch.workloads.checks.data_report import DataReport, Progress, read_images, report_on
from paretorch.workloads.formats import domains
from paretorch.workloads.loading.class_sampler import ClassSampler
from paretorch.workloads.loading.read_stream import ReadStream, worker_count
from paretorch.workloads.loading.selection import ordered
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import SPLITS, Plain, Splits


@dataclass(frozen=True)
class Office(Workload):
    """The class of an image in each domain; every domain is a task with images of its own.

    Of the images of a class, a fifth is for test and a fifth for validation, by name and seed. Images are resized as a whole to
    a square, without augmentation.

    Args:
        dataset: ``"office_31"``: amazon, dslr and webcam; or ``"office_home"``: Art, Clipart, Product and Real_World.
        domains: the tasks, separated by commas or as a list, if they are not those of the data set.
        root: the folder in which a folder ``office...`` is searched for.
        office: the folder of the domains, if not empty.
        size: pixels along one side of the network's input.
        encoder: of :data:`~.models.encoders.ENCODERS`.
        width: factor on the channels of the encoder.
        stride: of the encoder: 32 as published, a smaller one for small images.
        encoder_weights: ``"torchvision"`` as published, a file, or empty for random ones.
        workers: processes that read, for each stream; by the number of cores if None. It does not affect the results.
        data_seed: decides the splits, independently of a run's seed.

    Example:
        >>> Office().tasks, Office("office_home").tasks
        (('amazon', 'dslr', 'webcam'), ('Art', 'Clipart', 'Product', 'Real_World'))

    References:
        Saenko et al., "Adapting visual category models to new domains", ECCV 2010; Venkateswara et al., "Deep hashing network
        for unsupervised domain adaptation", CVPR 2017; as tasks Lin & Zhang, "LibMTL", JMLR 2023, whose lists of files these
        splits do not use.
    """

    title = (
        "Office-31, Office-Home: the class of an object, each domain a task with its own images, read from your folders"
    )
    files: ClassVar[str] = domains.OFFICE.description
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 1e-4, "weight_decay": 1e-5},
        "batch_size": 64,
        "epochs": 100,
    }

    dataset: str = "office_31"
    domains: str | Sequence[str] = ()
    root: str = "data"
    office: str = ""
    size: int = 224
    encoder: str = "resnet18"
    width: float = 1.0
    stride: int = 32
    encoder_weights: str = ""
    workers: int | None = None
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.dataset not in domains.DOMAINS:
            raise ValueError(f"office: dataset is one of {', '.join(domains.DOMAINS)}, got {self.dataset!r}")
        given = self.domains.split(",") if isinstance(self.domains, str) else self.domains
        object.__setattr__(self, "domains", tuple(name.strip() for name in given if name.strip()))
        check_head_names(self.tasks)
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"office: domains are distinct, got {', '.join(self.tasks)}")
        check_least("office", self, {"size": 32}, "pixels")
        check_least("office", self, {"workers": 0})

    @property
    def tasks(self) -> tuple[str, ...]:
        """The domains."""
        return tuple(self.domains) or domains.DOMAINS[self.dataset]

    def require(self) -> None:
        """Checks that the folders exist; no image is opened."""
        self._folders()

    def data(self) -> Splits:
        """A stream for each domain in each split: images (B, 3, size, size), bytes; classes (B,).

        Raises:
            FileNotFoundError: there is no folder with all domains.
            ValueError: the domains have different classes, or a class has fewer than three images.
        """
        found = self._folders()
        streams: dict[str, list[ReadStream]] = {name: [] for name in SPLITS}
        facts: dict[str, Plain] = {"classes": len(found.classes)}
        for domain in self.tasks:
            parts = found.splits(domain, self.data_seed)
            for name in SPLITS:
                reader = domains.DomainReader(domain, found.folders[domain], parts[name], self.size)
                classes = torch.tensor([image.label for image in parts[name]])
                sampler = ClassSampler(domain, reader.read, classes, self.size)
                streams[name].append(ReadStream(f"{domain}, {name}", sampler, worker_count(self.workers, sampler.kind)))
            facts[f"{domain}, images"] = {name: len(parts[name]) for name in SPLITS}
        facts["encoder weights"] = self.encoder_weights or "random"
        return Splits(tuple(streams["train"]), tuple(streams["validation"]), tuple(streams["test"]), facts)

    def model(self) -> nn.Module:
        """The encoder's last map, averaged, and a hidden layer: features (B, 512) at width 1; a linear head for each domain."""
        made = encoder(self.encoder, self.width, self.stride)
        if self.encoder_weights:
            load_encoder_weights(made, self.encoder_weights)
        hidden = nn.Linear(made.channels, made.channels)
        nn.init.normal_(hidden.weight, std=0.005)  # as published, like the bias
        nn.init.constant_(hidden.bias, 0.1)
        pooled = nn.Sequential(
            made,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            hidden,
            nn.BatchNorm1d(made.channels),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        count = len(self._folders().classes)
        return MultiTaskModel(pooled, {task: nn.Linear(made.channels, count) for task in self.tasks})

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy."""
        return {task: functional.cross_entropy(output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy in 0..1."""
        return {task: (Accuracy(),) for task in self.tasks}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the folders: images are counted, and ``images`` of each domain are read; all if None."""
        report = report_on(domains.OFFICE, self.office or self.root)
        found = report.attempt(self._folders)
        if found is None:
            return [report]
        report.found.append(f"in {found.root}, {len(found.classes)} classes")
        for domain in self.tasks:
            labelled = [
                domains.DomainImage(f"{name}/{file}", label)
                for label, (name, files) in enumerate(found.names(domain).items())
                for file in files
            ]
            published = domains.PUBLISHED.get(domain)
            note = (
                ""
                if published is None
                else "; as published"
                if published == len(labelled)
                else f"; published are {published:,}"
            )
            report.found.append(f"{domain}: {len(labelled):,} images{note}")
            by_name = {image.name: image for image in labelled}
            selected = tuple(by_name[name] for name in ordered(by_name, seed=0)[:images])
            reader = domains.DomainReader(domain, found.folders[domain], selected, self.size)
            read_images(report, domain, [f"{domain}/{image.name}" for image in selected], reader.read, progress)
        report.attempt(self.data)
        return [report]

    def _folders(self) -> domains.DomainFolders:
        return domains.find_domains(Path(self.root), self.tasks, self.office)
