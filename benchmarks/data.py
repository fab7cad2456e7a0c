"""Images per second from a pack and from files: JPEGs and, for COCO, polygons; both sides in one run, in turn.

python benchmarks/data.py [--images 400] [--rounds 5] [--size 256] [--root DIR]

Without --root it writes images of the published sizes and weights: 500 x 375 pixels for ImageNet, 640 x 480 with seven
objects of some twenty points for COCO, about 110 and 160 kB each. With --root it reads ImageNet and COCO from there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from paretorch.workloads import Stream
from paretorch.workloads.imagenet_coco import TASKS, ImagenetCoco

GOAL = 10.0
CATEGORIES = (1, 3, 17, 18, 32, 44, 62)


def picture(height: int, width: int, random: np.random.Generator) -> Image.Image:
    """Patches and grain, so that the file weighs what a photograph does."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + random.normal(0, 11, smooth.shape)).clip(0, 255).astype(np.uint8))


def polygon(height: int, width: int, random: np.random.Generator) -> list[float]:
    middle, radius = random.random(2) * (width, height), 20 + 100 * random.random()
    angles = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    reach = radius * (0.6 + 0.4 * random.random(20))
    points = np.stack([middle[0] + reach * np.cos(angles), middle[1] + reach * np.sin(angles)], axis=1)
    return points.clip(0, (width - 1, height - 1)).round(2).ravel().tolist()


def write(root: Path, images: int) -> None:
    random = np.random.default_rng(0)
    for number in range(images + 2):
        path = root / "imagenet" / "train" / f"class{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(375, 500, random).save(path, quality=90)
    coco = root / "coco"
    (coco / "train2017").mkdir(parents=True)
    (coco / "annotations").mkdir()
    listed, annotations = [], []
    for number in range(images + 2):
        picture(480, 640, random).save(coco / "train2017" / f"{number}.jpg", quality=90)
        listed.append({"id": number, "file_name": f"{number}.jpg", "height": 480, "width": 640})
        for category in CATEGORIES:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": [polygon(480, 640, random)],
                }
            )
    content = json.dumps({"images": listed, "annotations": annotations, "categories": []})
    (coco / "annotations" / "instances_train2017.json").write_text(content)


def speed(stream: Stream, order: int | None, limit: float) -> float:
    """Images per second of a pass, or of as much of it as takes ``limit`` seconds."""
    began, images = time.perf_counter(), 0
    for batch in stream.batches(32, order):
        images += batch.size
        if time.perf_counter() - began > limit:
            break
    return images / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = given.root or Path(folder)
        if given.root is None:
            write(root, given.images)
        sizes = {"classes": 2, "train": given.images, "validation": 1, "test": 1, "size": given.size, "workers": 0}
        made = {
            name: ImagenetCoco(root=str(root), pack=f"{folder}/packed", source=name, **sizes)
            for name in ("files", "pack")
        }
        began = time.perf_counter()
        packs = made["files"].packed(Path(folder) / "packed")
        print(
            f"packing: {sum(pack.images for pack in packs) / (time.perf_counter() - began):,.0f} images/s, one process"
        )
        compare({name: each.data().train for name, each in made.items()}, given.rounds)


def compare(streams: dict[str, tuple[Stream, ...]], rounds: int) -> None:
    print(f"images/s in one process, median of {rounds} rounds; ratio: median and smallest of the rounds; goal {GOAL}")
    print("| task | order | files | pack | ratio | smallest |\n|---|---|---|---|---|---|")
    for place, task in enumerate(TASKS):
        for title, order in (("in stored order", None), ("shuffled, cropped", 1)):
            speed(streams["pack"][place], order, 2.0)  # into the system's cache, as for the files just written
            found = []
            for turn in range(rounds):
                names = ("files", "pack") if turn % 2 else ("pack", "files")
                rate = {name: speed(streams[name][place], order, 2.0) for name in names}
                found.append((rate["files"], rate["pack"], rate["pack"] / rate["files"]))
            files, pack, ratio = (statistics.median(column) for column in zip(*found, strict=True))
            print(
                f"| {task} | {title} | {files:,.0f} | {pack:,.0f} | {ratio:.1f} | {min(each[2] for each in found):.1f} |"
            )


if __name__ == "__main__":
    main()
