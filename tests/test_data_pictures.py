"""Image files of every kind that ImageNet and COCO hold; image and mask move together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_folders import pixels, save_jpeg, truncate
from paretorch.workloads.formats.pictures import ORIENTATION, UnreadableError, is_picture, read_rgb
from paretorch.workloads.reading.geometry import augmentation, augmented, centred, squared, stored_edge

SMOOTH = pixels(40, 56, np.random.default_rng(0))


def read(path: Path, **options: tuple[int, int]) -> Tensor:
    return read_rgb(path, path.name, **options)  # type: ignore[arg-type]


def test_colours_come_as_they_were_saved(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.png")
    assert torch.equal(read(tmp_path / "a.png"), torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1))
    save_jpeg(tmp_path / "a.jpg", SMOOTH)
    difference = read(tmp_path / "a.jpg").float() - torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1)
    assert float(difference.abs().mean()) < 4


def test_grey_levels_are_repeated_and_cmyk_is_converted(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).convert("L").save(tmp_path / "grey.JPEG")
    grey = read(tmp_path / "grey.JPEG")
    assert grey.shape == (3, 40, 56)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "cmyk.JPEG", quality=95)
    assert float((read(tmp_path / "cmyk.JPEG").float() - read_plain()).abs().mean()) < 4


def read_plain() -> Tensor:
    return torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1).float()


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    colours = np.dstack([SMOOTH, np.full((40, 56), 255, np.uint8)])
    colours[:10, :, 3] = 0
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    found = read(tmp_path / "alpha.png")
    assert bool((found[:, :10] == 255).all())
    assert torch.equal(found[:, 10:].float(), read_plain()[:, 10:])


def test_sixteen_bits_are_cut_to_eight(tmp_path: Path) -> None:
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert torch.equal(read(tmp_path / "deep.png")[0], torch.arange(256, dtype=torch.uint8).view(16, 16))


def test_a_turned_camera_is_turned_back_unless_labels_lie_on_the_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the stored rows are the picture's columns
    Image.fromarray(SMOOTH).save(tmp_path / "turned.png", exif=exif)
    upright = torch.from_numpy(np.rot90(SMOOTH, -1).copy()).permute(2, 0, 1)
    assert torch.equal(read(tmp_path / "turned.png"), upright)
    assert torch.equal(read(tmp_path / "turned.png", shape=(40, 56)).float(), read_plain())
    assert torch.equal(read(tmp_path / "turned.png", shape=(56, 40)), upright)


def test_large_jpegs_are_decoded_small(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "large.jpg", pixels(400, 560, np.random.default_rng(0)))
    assert read_rgb(tmp_path / "large.jpg", "large", least=50).shape == (3, 50, 70)
    assert read_rgb(tmp_path / "large.jpg", "large", least=51).shape == (3, 100, 140)


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
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
        ("none.jpg", "not there"),
    ):
        with pytest.raises(UnreadableError, match=f"{name}: .*{reason}") as caught:
            read(tmp_path / name)
        assert caught.value.name == name
    with pytest.raises(UnreadableError, match="labels are drawn on 56 x 41 pixels, the image has 56 x 40"):
        read(tmp_path / "other.jpg", shape=(41, 56))


def test_hidden_files_are_no_pictures() -> None:
    assert [name for name in ("a.JPEG", "._a.JPEG", "a.txt", "a.png", "a.tar") if is_picture(name)] == [
        "a.JPEG",
        "a.png",
    ]


def blob(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image that is white exactly where its mask is 1."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[height // 4 : height // 2, width // 3 : 3 * width // 4] = 1
    return (255 * mask).expand(3, -1, -1).contiguous(), mask


@pytest.mark.parametrize(("height", "width"), [(80, 80), (100, 160), (161, 97), (20, 33)])
def test_the_square_is_the_middle_and_the_mask_lies_on_the_image(height: int, width: int) -> None:
    image, mask = squared(*blob(height, width), 40)
    assert mask is not None
    assert image.shape == (3, 40, 40)
    assert mask.shape == (40, 40)
    assert float(((image[0] > 127) == (mask == 1)).float().mean()) > 0.99
    assert set(mask.unique().tolist()) <= {0, 1}


def test_a_mask_is_not_shifted_against_its_image() -> None:
    image, mask = blob(216, 216)
    image, small = squared(image, mask, 72)
    assert small is not None
    places = torch.arange(72.0)
    for axis in (0, 1):
        bright = image[0].float().sum(dim=axis)
        labelled = small.float().sum(dim=axis)
        middle = [float((profile * places).sum() / profile.sum()) for profile in (bright, labelled)]
        assert middle[0] == pytest.approx(middle[1], abs=0.2)


@pytest.mark.parametrize("kind", ["crop", "zoom", "none"])
def test_image_and_mask_are_drawn_together(kind: str) -> None:
    image, mask = blob(72, 72)
    seen = set()
    for seed in range(20):
        part, labels = augmented(image, mask, 64, augmentation(kind), torch.Generator().manual_seed(seed))
        assert labels is not None
        assert part.shape == (3, 64, 64)
        assert labels.shape == (64, 64)
        assert float(((part[0] > 127) == (labels == 1)).float().mean()) > 0.97
        seen.add(labels.numpy().tobytes())
    assert (len(seen) == 1) == (kind == "none")


def test_draws_follow_the_generator_alone() -> None:
    image, mask = blob(72, 72)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (augmented(image, mask, 64, "zoom", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_takes_the_middle() -> None:
    image = torch.arange(72 * 72).view(1, 72, 72)
    part, _ = centred(image, None, 64)
    assert torch.equal(part, image[:, 4:68, 4:68])
    assert stored_edge(64) == 72


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ValueError, match="crop, zoom, none, got 'flip'"):
        augmentation("flip")
