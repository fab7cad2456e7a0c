"""Image files of any kind -> RGB bytes; what cannot be read is named with its reason, never replaced."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from paretorch.extras import extra

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})
ORIENTATION = 274  # the EXIF tag
TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


class UnreadableError(Exception):
    """A sample that cannot be used.

    Args:
        name: the file, as the data set calls it.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def is_picture(name: str) -> bool:
    """Whether a file's name ends like an image's; hidden files, such as those that some systems leave, are none.

    Example:
        >>> is_picture("n01440764_10026.JPEG"), is_picture("._n01440764_10026.JPEG"), is_picture("notes.txt")
        (True, False, False)
    """
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def pictures_in(folder: Path) -> list[str]:
    """The names of the images in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_picture(entry.name))


def read_rgb(path: Path, name: str, *, shape: tuple[int, int] | None = None, least: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB.

    Grey levels are repeated, CMYK is converted, 16 bits are cut to 8, and what is transparent lies on white. A picture
    that was taken with the camera turned is turned upright, as its EXIF entry says.

    Args:
        path: the file.
        name: what it is called in messages.
        shape: (H, W) that the labels are drawn in: the stored pixels are left as they lie where they have this shape.
        least: pixels of the shorter side that suffice: a JPEG that has twice as many or more is decoded at a half, a
            quarter or an eighth of its size, which takes as much less time.

    Raises:
        UnreadableError: the file is missing, cut off, no image, or has another shape than ``shape``.
    """
    with extra("studies"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata: the pixels are what counts
            if least is not None:
                picture.draft("RGB", (least, least))
            picture.load()
            stored = (picture.height, picture.width)
            if shape is None or (stored != shape and picture.getexif().get(ORIENTATION, 1) >= 5):
                ImageOps.exif_transpose(picture, in_place=True)
            pixels = np.array(_opaque_rgb(picture))
    except FileNotFoundError:
        raise UnreadableError(name, "it is not there") from None
    except UnidentifiedImageError:
        raise UnreadableError(name, "it is not an image, or of a kind that is not known") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        zlib.error,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadableError(name, str(error) or type(error).__name__) from None
    if shape is not None and pixels.shape[:2] != shape:
        found, expected = "{1} x {0}".format(*pixels.shape), "{1} x {0}".format(*shape)
        raise UnreadableError(name, f"its labels are drawn on {expected} pixels, the image has {found}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _opaque_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        colours = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return picture.convert("RGB")
