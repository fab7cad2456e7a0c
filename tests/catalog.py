"""Every shipped study with its properties. A study without an entry fails ``test_studies_catalog.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudyEntry:
    """A shipped study and its properties.

    Args:
        name: the name on the command line.
        digests: by scale, the start of the SHA-256 of ``study`` in ``study.json``. A folder resumes only with an equal study, so
            a new digest is a change for users with unfinished studies. Empty where the study contains every method, so that it
            changes with each new one.
        differs: fields of :class:`~paretorch.training.run.Run` in which the treatments on one workload differ.
        options: every option of the study's function, with a value that is not its default.
        files: by scale, the data set of which the files are missing first; other scales need no files.
    """

    name: str
    digests: Mapping[str, str]
    differs: frozenset[str]
    options: Mapping[str, Any]
    files: Mapping[str, str]


CATALOG = [
    StudyEntry(
        "quickstart",
        digests={"smoke": "849de186e23198d6", "small": "6eae7670416a5afc"},
        differs=frozenset({"tasks", "method"}),
        options={},
        files={},
    ),
    StudyEntry(
        "optimizers",
        digests={"smoke": "3356e745d1bb79bc", "small": "ce43160eacd91e16", "paper": "3b6aeb1019ee4da5"},
        differs=frozenset({"optimizer", "optimizer_options"}),
        files={"paper": "ImageNet"},
        options={
            "optimizers": "sgd, adam",
            "methods": "sum, MGDA()",
            "classes": 1000,
            "loss_weights": "1, 0.5",
            "baselines": True,
            "root": "elsewhere",
            "encoder": "resnet18",
            "encoder_weights": "torchvision",
            "device": "cuda",
        },
    ),
    StudyEntry(
        "methods",
        digests={"smoke": "", "small": ""},
        differs=frozenset({"tasks", "method", "surface", "optimizer_options"}),
        options={"methods": "IMTLG(), CAGrad(c=0.2)", "device": "cuda"},
        files={},
    ),
    StudyEntry(
        "mgda",
        digests={"smoke": "81d2ca13a9a4a503", "small": "d2a078dc5b5683cb", "paper": "8dede812c432e6a0"},
        differs=frozenset({"tasks", "method", "surface", "optimizer_options"}),
        options={"methods": "IMTLG(), CAGrad(c=0.2)", "root": "elsewhere", "device": "cuda"},
        files={"paper": "MNIST"},
    ),
    StudyEntry(
        "leaderboard",
        digests={"smoke": "", "small": "", "paper": ""},
        differs=frozenset({"tasks", "method", "surface"}),
        options={"methods": "IMTLG(), CAGrad(c=0.2)", "root": "elsewhere", "device": "cuda"},
        files={"paper": "MNIST"},
    ),
    StudyEntry(
        "line-search",
        digests={"smoke": "64a5f671f06b8dd6", "small": "2534003149db63f7", "paper": "1672d0eba8de55cf"},
        differs=frozenset({"tasks", "method", "surface", "optimizer", "optimizer_options"}),
        files={"paper": "MNIST"},
        options={"root": "elsewhere", "device": "cuda"},
    ),
    StudyEntry(
        "fronts",
        digests={"smoke": "cdf1f3410a74dd60", "small": "12ceae39d795e88e", "paper": "3e775f214ac1a703"},
        differs=frozenset({"front", "front_options"}),
        files={"paper": "MNIST"},
        options={"root": "elsewhere", "device": "cuda"},
    ),
]
