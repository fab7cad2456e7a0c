"""Image files of several formats as RGB bytes; a file that cannot be read raises an error with its name and the reason."""

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
from paretorch.storage.regular_files import IrregularFileError, is_exhausted, open_regular
from paretorch.workloads.loading.unreadable import UnreadableError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})
# Pillow detects a format by the content, not by the name, and has decoders that run programs (EPS: Ghostscript)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
PIXELS = 1 << 26  # 8192 x 8192: more than any photograph of ImageNet; a small file may declare far more
LARGEST = 1 << 29  # bytes of a file: more than PIXELS take without compression; metadata may declare more
SCANS = 100  # of a progressive JPEG, each of which passes over all pixels; encoders write about ten
METADATA = 1 << 24  # bytes besides the pixels, which take at most 8 each
STRIP = 1 << 21  # pixels that are converted at a time
ORIENTATION = 274  # the EXIF tag
TRANSPARENT = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


def is_image_file(name: str) -> bool:
    """Whether a file name has the extension of an image; hidden files, which some systems create, do not count.

    Example:
        >>> is_image_file("n01440764_10026.JPEG"), is_image_file("._n01440764_10026.JPEG"), is_image_file("notes.txt")
        (True, False, False)
    """
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def image_files_in(folder: Path) -> list[str]:
    """The names of the images in a folder, sorted; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image_file(entry.name))


def read_rgb(
    path: Path, name: str, *, shape: tuple[int, int] | None = None, least: int | None = None, most: int = PIXELS
) -> Tensor:
    """An image file as (3, H, W) uint8 RGB.

    Grey levels are repeated, CMYK is converted, 16 bits are reduced to 8, and transparent pixels are blended with white. A
    photograph is rotated as its EXIF orientation requires.

    Args:
        path: the file.
        name: its name in messages.
        shape: (H, W) of the image's labels; stored pixels of this shape are not rotated.
        least: sufficient pixels of the shorter side: a JPEG with at least twice as many is decoded at a half, a quarter or
            an eighth of its size, which is faster.
        most: pixels that the image may have; they are counted before memory is allocated.

    Raises:
        UnreadableError: the file is missing, truncated, not regular, not an image of :data:`FORMATS`, has more pixels than
            ``most``, or another shape than ``shape``.
    """
    with extra("studies"):
        from PIL import ImageOps
    with opened_image(path, name, FORMATS, most) as picture:
        if shape is not None and shape not in ((picture.height, picture.width), (picture.width, picture.height)):
            raise _other_shape(name, shape, (picture.height, picture.width))
        if least is not None:
            picture.draft("RGB", (least, least))
        picture.load()
        stored = (picture.height, picture.width)
        if shape is None or (stored != shape and picture.getexif().get(ORIENTATION, 1) >= 5):
            ImageOps.exif_transpose(picture, in_place=True)
        pixels = _pixels(picture)
    if shape is not None and pixels.shape[:2] != shape:
        raise _other_shape(name, shape, pixels.shape[:2])
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def opened_image(path: Path, name: str, formats: tuple[str, ...], most: int) -> Iterator[Image]:
    """An image file with its header read; within the context, exceptions of Pillow become an UnreadableError.

    Args:
        path: the file.
        name: its name in messages.
        formats: the formats of Pillow that are tried; none of them may run a program.
        most: pixels that the image may have.

    Raises:
        UnreadableError: the file cannot be read.
        OSError: the process has no file handle left.
    """
    with extra("studies"):
        from PIL import Image, UnidentifiedImageError
    try:
        with warnings.catch_warnings(), open_regular(path) as file:
            warnings.simplefilter("ignore")  # Pillow's, about unusual metadata, which do not affect the pixels
            if (size := os.fstat(file.fileno()).st_size) > LARGEST:
                raise UnreadableError(name, f"it has {size:,} bytes, at most {LARGEST:,} are read: make it smaller")
            with Image.open(file, formats=formats) as picture:
                width, height = picture.size
                if width * height > most:
                    dimensions = f"{width:,} x {height:,} pixels"
                    raise UnreadableError(name, f"it has {dimensions}, at most {most:,} are read: make it smaller")
                if size > METADATA + 8 * width * height:
                    raise UnreadableError(name, f"it has {size:,} bytes, more than its pixels take without compression")
                if picture.info.get("progressive") and _scans(file.fileno()) > SCANS:
                    raise UnreadableError(name, f"it has more than {SCANS} scans: save it again")
                yield picture
    except FileNotFoundError:
        raise UnreadableError(name, "it is missing") from None
    except IrregularFileError as error:
        raise UnreadableError(name, str(error)) from None
    except UnidentifiedImageError:
        raise UnreadableError(name, f"it is not an image of a known format: expected {', '.join(formats)}") from None
    except Image.DecompressionBombError:
        raise UnreadableError(name, f"it has too many pixels, at most {most:,} are read: make it smaller") from None
    except MemoryError:
        raise UnreadableError(name, "there is not enough memory to decode it: make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
            AssertionError, RecursionError, zlib.error, struct.error) as error:  # fmt: skip
        if is_exhausted(error):
            raise
        raise UnreadableError(name, str(error) or type(error).__name__) from None


def _scans(descriptor: int) -> int:
    """Number of scans of a JPEG file; the marker of a scan does not occur in compressed data."""
    found, offset, last = 0, 0, b""
    while part := os.pread(descriptor, STRIP, offset):
        found += (last + part).count(b"\xff\xda")
        offset, last = offset + len(part), part[-1:]
    return found


def _other_shape(name: str, shape: tuple[int, int], found: tuple[int, ...]) -> UnreadableError:
    expected, got = "{1} x {0}".format(*shape), "{1} x {0}".format(*found)
    return UnreadableError(name, f"its labels have {expected} pixels, the image has {got}")


def _pixels(picture: Image) -> NDArray[np.uint8]:
    """(H, W, 3), converted in strips of rows: a conversion of the whole image would need memory for a copy of it."""
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
