"""Image files of any kind -> RGB bytes; what cannot be read is named with its reason, never replaced."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.extras import extra
from paretorch.storage.regular_files import IrregularFileError, open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})
# Pillow guesses a format by the content, whatever the name says, and has readers that run programs (EPS: Ghostscript)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
PIXELS = 1 << 26  # 8192 x 8192: more than any photograph of ImageNet has; a small file may declare far more
LARGEST = 1 << 29  # bytes of a file: more than so many pixels take without compression; metadata may declare more
SCANS = 100  # of a progressive JPEG, each of which passes over all pixels; encoders write about ten
METADATA = 1 << 24  # bytes beside the pixels, which take at most 8 each
STRIP = 1 << 21  # pixels that are converted at a time
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


def read_rgb(
    path: Path, name: str, *, shape: tuple[int, int] | None = None, least: int | None = None, most: int = PIXELS
) -> Tensor:
    """An image file as (3, H, W) uint8 RGB.

    Grey levels are repeated, CMYK is converted, 16 bits are cut to 8, and what is transparent lies on white. A picture
    that was taken with the camera turned is turned upright, as its EXIF entry says.

    Args:
        path: the file.
        name: what it is called in messages.
        shape: (H, W) that the labels are drawn in: the stored pixels are left as they lie where they have this shape.
        least: pixels of the shorter side that suffice: a JPEG that has twice as many or more is decoded at a half, a
            quarter or an eighth of its size, which takes as much less time.
        most: pixels that the image may have; they are counted before memory is taken for them.

    Raises:
        UnreadableError: the file is missing, cut off, no regular file, no image of :data:`FORMATS`, larger than ``most``, or
            has another shape than ``shape``.
    """
    with extra("studies"):
        from PIL import ImageOps
    with opened_picture(path, name, FORMATS, most) as picture:
        if shape is not None and shape not in ((picture.height, picture.width), (picture.width, picture.height)):
            raise _drawn_otherwise(name, shape, (picture.height, picture.width))
        if least is not None:
            picture.draft("RGB", (least, least))
        picture.load()
        stored = (picture.height, picture.width)
        if shape is None or (stored != shape and picture.getexif().get(ORIENTATION, 1) >= 5):
            ImageOps.exif_transpose(picture, in_place=True)
        pixels = _pixels(picture)
    if shape is not None and pixels.shape[:2] != shape:
        raise _drawn_otherwise(name, shape, pixels.shape[:2])
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def opened_picture(path: Path, name: str, formats: tuple[str, ...], most: int) -> Iterator[Image]:
    """An image file whose header was read; within it, what Pillow raises is said of the file.

    Args:
        path: the file.
        name: what it is called in messages.
        formats: of Pillow's formats, those that are tried: none of them may run a program.
        most: pixels that the image may have.

    Raises:
        UnreadableError: the file cannot be used; the reason says why.
    """
    with extra("studies"):
        from PIL import Image, UnidentifiedImageError
    try:
        with warnings.catch_warnings(), open_regular(path) as file:
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata: the pixels are what counts
            if (size := os.fstat(file.fileno()).st_size) > LARGEST:
                raise UnreadableError(name, f"it has {size:,} bytes, at most {LARGEST:,} are read: make it smaller")
            with Image.open(file, formats=formats) as picture:
                if picture.width * picture.height > most:
                    raise UnreadableError(
                        name,
                        f"it has {picture.width:,} x {picture.height:,} pixels, at most {most:,} are read: make it smaller",
                    )
                if size > METADATA + 8 * picture.width * picture.height:
                    raise UnreadableError(name, f"it has {size:,} bytes, more than its pixels take without compression")
                if picture.info.get("progressive") and _scans(file.fileno()) > SCANS:
                    raise UnreadableError(name, f"it has more than {SCANS} scans: save it anew")
                yield picture
    except FileNotFoundError:
        raise UnreadableError(name, "it is not there") from None
    except IrregularFileError as error:
        raise UnreadableError(name, str(error)) from None
    except UnidentifiedImageError:
        known = ", ".join(formats)
        raise UnreadableError(name, f"it is not an image, or of a kind that is not known: expected {known}") from None
    except Image.DecompressionBombError:
        raise UnreadableError(name, f"it has too many pixels, at most {most:,} are read: make it smaller") from None
    except MemoryError:
        raise UnreadableError(name, "there is not enough memory to decode it: make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
            AssertionError, RecursionError, zlib.error, struct.error) as error:  # fmt: skip
        raise UnreadableError(name, str(error) or type(error).__name__) from None


def _scans(descriptor: int) -> int:
    """How many scans a JPEG file has; the marker that begins one occurs nowhere in compressed data."""
    found, place, last = 0, 0, b""
    while part := os.pread(descriptor, STRIP, place):
        found += (last + part).count(b"\xff\xda")
        place, last = place + len(part), part[-1:]
    return found


def _drawn_otherwise(name: str, shape: tuple[int, int], found: tuple[int, ...]) -> UnreadableError:
    wanted, got = "{1} x {0}".format(*shape), "{1} x {0}".format(*found)
    return UnreadableError(name, f"its labels are drawn on {wanted} pixels, the image has {got}")


def _pixels(picture: Image) -> NDArray[np.uint8]:
    """(H, W, 3), converted some rows at a time: each conversion of a whole picture would hold a copy of it."""
    width, height = picture.size
    rows = max(1, STRIP // max(1, width))
    if rows >= height:
        return np.array(_opaque_rgb(picture))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = np.asarray(_opaque_rgb(picture.crop((0, top, width, bottom))))
    return pixels


def _opaque_rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        colours = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return picture.convert("RGB")
