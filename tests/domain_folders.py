"""Tiny versions of Office-31 and Office-Home in the published layout, written from a seed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("back_pack", "bike", "mug")


def write_domain(folder: Path, classes: tuple[str, ...], images: int, seed: int) -> None:
    """JPEG files whose brightest channel is the class; sizes differ."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(images):
            pixels = random.integers(0, 60, (40 + 5 * (index % 3), 48, 3))
            pixels[..., label % 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"frame_{index + 1:04}.jpg", quality=95)


def write_office_31(root: Path, images: tuple[int, int, int] = (10, 5, 7)) -> Path:
    """``office31/amazon/images/CLASS/frame_0001.jpg`` and the other two domains."""
    place = root / "office31"
    for seed, (domain, count) in enumerate(zip(("amazon", "dslr", "webcam"), images, strict=True)):
        write_domain(place / domain / "images", CLASSES, count, seed)
    return place


def write_office_home(root: Path, images: int = 5) -> Path:
    """``OfficeHomeDataset_10072016/Real World/CLASS/frame_0001.jpg`` and the other three domains."""
    place = root / "OfficeHomeDataset_10072016"
    for seed, domain in enumerate(("Art", "Clipart", "Product", "Real World")):
        write_domain(place / domain, ("Alarm_Clock", "Bed"), images, seed)
    return place


@lru_cache(maxsize=1)
def shared_office() -> str:
    """A root for the whole test run that no test changes."""
    root = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_office_31(Path(root), (40, 20, 20))
    return root
