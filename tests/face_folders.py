"""A tiny CelebA in the published layout."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from paretorch.workloads.formats.celeba import ATTRIBUTES

COUNTS = (12, 5, 4)  # train, validation, test


def write_celeba(root: Path, folder: str = "celeba", counts: tuple[int, int, int] = COUNTS, seed: int = 0) -> Path:
    """Faces of 178 x 218 pixels, with a bright upper half if they smile, and the two lists."""
    place, random = root / folder, np.random.default_rng(seed)
    for inner in ("Img/img_align_celeba", "Anno", "Eval"):
        (place / inner).mkdir(parents=True)
    truths = random.integers(0, 2, (sum(counts), len(ATTRIBUTES)))
    lines, parts = [str(sum(counts)), " ".join(ATTRIBUTES) + " "], []
    for number, truth in enumerate(truths):
        name = f"{number + 1:06}.jpg"
        pixels = random.integers(0, 40, (218, 178, 3))
        pixels[:109] += 180 * int(truth[ATTRIBUTES.index("Smiling")])
        Image.fromarray(pixels.astype(np.uint8)).save(place / "Img/img_align_celeba" / name, quality=95)
        lines.append(f"{name} " + " ".join(f"{2 * int(value) - 1:2}" for value in truth))
        parts.append(f"{name} {int(number >= counts[0]) + int(number >= counts[0] + counts[1])}")
    (place / "Anno/list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (place / "Eval/list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return place


@lru_cache(maxsize=1)
def shared_celeba() -> str:
    """A root for the whole test run that no test changes."""
    root = Path(tempfile.mkdtemp(prefix="celeba-"))
    write_celeba(root, counts=(80, 20, 20))
    return str(root)
