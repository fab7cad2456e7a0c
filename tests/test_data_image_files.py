"""Image files of every kind in ImageNet and COCO, and crops of image and mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_folders import pixels, save_jpeg, truncate
from paretorch.workloads.formats.image_files import ORIENTATION, is_image_file, read_rgb
from paretorch.workloads.loading.image_crops import (
    central_square,
    centre_crop,
    check_augmentation,
    random_crop,
    stored_edge,
)
from paretorch.workloads.loading.unreadable import UnreadableError

SMOOTH = pixels(40, 56, np.random.default_rng(0))


def read_whole(path: Path, **options: tuple[int, int]) -> Tensor:
    return read_rgb(path, path.name, **options)  # type: ignore[arg-type]


def test_image_files_have_the_saved_colours(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.png")
    assert torch.equal(read_whole(tmp_path / "a.png"), torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1))
    save_jpeg(tmp_path / "a.jpg", SMOOTH)
    difference = read_whole(tmp_path / "a.jpg").float() - torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1)
    assert float(difference.abs().mean()) < 4


def test_image_files_in_grey_and_cmyk_are_converted(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).convert("L").save(tmp_path / "grey.JPEG")
    grey = read_whole(tmp_path / "grey.JPEG")
    assert grey.shape == (3, 40, 56)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "cmyk.JPEG", quality=95)
    assert float((read_whole(tmp_path / "cmyk.JPEG").float() - read_plain()).abs().mean()) < 4


def read_plain() -> Tensor:
    return torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1).float()


def test_image_files_with_transparency_are_blended_with_white(tmp_path: Path) -> None:
    colours = np.dstack([SMOOTH, np.full((40, 56), 255, np.uint8)])
    colours[:10, :, 3] = 0
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    found = read_whole(tmp_path / "alpha.png")
    assert bool((found[:, :10] == 255).all())
    assert torch.equal(found[:, 10:].float(), read_plain()[:, 10:])


def test_image_files_of_16_bits_are_reduced_to_8(tmp_path: Path) -> None:
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert torch.equal(read_whole(tmp_path / "deep.png")[0], torch.arange(256, dtype=torch.uint8).view(16, 16))


def test_image_files_are_rotated_by_exif_unless_labels_have_the_stored_shape(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the stored rows are the columns of the image
    Image.fromarray(SMOOTH).save(tmp_path / "turned.png", exif=exif)
    upright = torch.from_numpy(np.rot90(SMOOTH, -1).copy()).permute(2, 0, 1)
    assert torch.equal(read_whole(tmp_path / "turned.png"), upright)
    assert torch.equal(read_whole(tmp_path / "turned.png", shape=(40, 56)).float(), read_plain())
    assert torch.equal(read_whole(tmp_path / "turned.png", shape=(56, 40)), upright)


def test_image_files_of_large_jpegs_are_decoded_at_a_smaller_size(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "large.jpg", pixels(400, 560, np.random.default_rng(0)))
    assert read_rgb(tmp_path / "large.jpg", "large", least=50).shape == (3, 50, 70)
    assert read_rgb(tmp_path / "large.jpg", "large", least=51).shape == (3, 100, 140)


def test_image_file_errors_have_name_and_reason(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "cut.jpg", SMOOTH)
    truncate(tmp_path / "cut.jpg")
    Image.fromarray(SMOOTH).save(tmp_path / "cut.png")
    truncate(tmp_path / "cut.png")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    save_jpeg(tmp_path / "other.jpg", SMOOTH)
    for name, reason in (
        ("cut.jpg", "truncated"),
        ("cut.png", ""),
        ("text.jpg", "not an image"),
        ("empty.jpg", "not an image"),
        ("none.jpg", "missing"),
    ):
        with pytest.raises(UnreadableError, match=f"{name}: .*{reason}") as caught:
            read_whole(tmp_path / name)
        assert caught.value.name == name
    with pytest.raises(UnreadableError, match="labels have 56 x 41 pixels, the image has 56 x 40"):
        read_whole(tmp_path / "other.jpg", shape=(41, 56))


def test_image_files_exclude_hidden_files() -> None:
    assert [name for name in ("a.JPEG", "._a.JPEG", "a.txt", "a.png", "a.tar") if is_image_file(name)] == [
        "a.JPEG",
        "a.png",
    ]


def blob(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image that is white exactly where its mask is 1."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[height // 4 : height // 2, width // 3 : 3 * width // 4] = 1
    return (255 * mask).expand(3, -1, -1).contiguous(), mask


@pytest.mark.parametrize(("height", "width"), [(80, 80), (100, 160), (161, 97), (20, 33)])
def test_central_square_crops_image_and_mask_equally(height: int, width: int) -> None:
    image, mask = central_square(*blob(height, width), 40)
    assert mask is not None
    assert image.shape == (3, 40, 40)
    assert mask.shape == (40, 40)
    assert float(((image[0] > 127) == (mask == 1)).float().mean()) > 0.99
    assert set(mask.unique().tolist()) <= {0, 1}


def test_central_square_does_not_shift_the_mask() -> None:
    image, mask = blob(216, 216)
    image, small = central_square(image, mask, 72)
    assert small is not None
    places = torch.arange(72.0)
    for axis in (0, 1):
        bright = image[0].float().sum(dim=axis)
        labelled = small.float().sum(dim=axis)
        middle = [float((profile * places).sum() / profile.sum()) for profile in (bright, labelled)]
        assert middle[0] == pytest.approx(middle[1], abs=0.2)


@pytest.mark.parametrize("kind", ["crop", "zoom", "none"])
def test_random_crop_transforms_image_and_mask_equally(kind: str) -> None:
    image, mask = blob(72, 72)
    results = set()
    for seed in range(20):
        part, labels = random_crop(image, mask, 64, check_augmentation(kind), torch.Generator().manual_seed(seed))
        assert labels is not None
        assert part.shape == (3, 64, 64)
        assert labels.shape == (64, 64)
        assert float(((part[0] > 127) == (labels == 1)).float().mean()) > 0.97
        results.add(labels.numpy().tobytes())
    assert (len(results) == 1) == (kind == "none")


def test_random_crop_depends_on_the_generator_alone() -> None:
    image, mask = blob(72, 72)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (random_crop(image, mask, 64, "zoom", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_centre_crop_takes_the_middle() -> None:
    image = torch.arange(72 * 72).view(1, 72, 72)
    part, _ = centre_crop(image, None, 64)
    assert torch.equal(part, image[:, 4:68, 4:68])
    assert stored_edge(64) == 72


def test_unknown_augmentation_is_an_error() -> None:
    with pytest.raises(ValueError, match="crop, zoom, none, got 'flip'"):
        check_augmentation("flip")
