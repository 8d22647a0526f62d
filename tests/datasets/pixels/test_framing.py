"""Which part of an image the square holds, and which part of the square evaluation sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.batches.resize import resize_centre
from ttc.datasets.pixels.decoding import decode_file
from ttc.datasets.pixels.framing import area_cut_off, padded_place
from ttc.datasets.pixels.preprocessing import FRAMINGS, Decoding, stored_size


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(("width", "height"), [(100, 10), (10, 100), (60, 40), (400, 30)])
def test_a_finding_at_the_border_is_seen_unless_it_is_cropped(
    width: int, height: int, suffix: str, tmp_path: Path
) -> None:
    pixels = np.full((height, width), 60, dtype=np.uint8)
    wide = width > height
    (pixels[:, : width // 10] if wide else pixels[: height // 10])[:] = 250
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", quality=95)
    found = {each: decode_file(str(tmp_path / f"a{suffix}"), Decoding(20, 1, each))[0] for each in FRAMINGS}
    turned = {each: square if wide else square.T for each, square in found.items()}
    assert turned["crop"].max() < 80
    assert (turned["squash"][:, 0] > 220).all()
    assert (turned["squash"][:, 5:] < 80).all()
    inner_width, inner_height, left, top = padded_place(max(width, height), min(width, height), 20)
    assert (inner_width, left) == (20, 0)
    assert (turned["pad"][top : top + inner_height, 0] > 200).all()
    assert (turned["pad"][:top] == 0).all()
    assert (turned["pad"][top + inner_height :] == 0).all()
    assert (turned["pad"][top : top + inner_height, 5:] > 40).all()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_both_jpeg_paths_and_the_others_frame_alike(framing: str, tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(40, 220, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((240, 150), Image.Resampling.BICUBIC)
    for suffix in ("jpg", "png"):
        image.save(tmp_path / f"a.{suffix}", quality=97)
    for size in (24, 75):
        jpeg, other = (
            decode_file(str(tmp_path / f"a.{each}"), Decoding(size, 3, framing)).int() for each in ("jpg", "png")
        )
        difference = (jpeg - other).abs().float()
        assert difference.mean() < 2
        assert difference.quantile(0.99) < 10


def test_share_of_the_area_that_is_cut_off() -> None:
    assert area_cut_off(1000, 400, "crop") == pytest.approx(0.6)
    assert area_cut_off(300, 4000, "crop") == pytest.approx(0.925)
    assert area_cut_off(50, 50, "crop") == 0
    assert area_cut_off(4000, 300, "pad") == area_cut_off(4000, 300, "squash") == 0


def seen(stored: int, image_size: int, shown: float) -> Tensor:
    """Return how much each row of the stored square counts in the plain view, as a share of the whole."""
    generator = ViewGenerator(PRESETS["natural"], image_size, (0.0,), (1.0,), 0, shown)
    rows = torch.zeros(stored, 1, stored, stored, dtype=torch.uint8)
    rows[torch.arange(stored), :, torch.arange(stored)] = 255
    return generator.plain(rows).sum((1, 2, 3)) / image_size**2


@pytest.mark.parametrize("stored", [20, 23, 24, 31, 40, 80])
def test_the_area_that_evaluation_sees_does_not_depend_on_the_stored_size(stored: int) -> None:
    shown = 20 / stored_size(20)
    weight = seen(stored, 20, shown)
    assert weight.sum() == pytest.approx(1, abs=1e-5)
    place = (torch.arange(stored) + 0.5) / stored - 0.5
    # A uniform window of that length has this mean and this variance, the filter's width apart.
    assert float((weight * place).sum()) == pytest.approx(0, abs=0.51 / stored)
    assert float((weight * place.square()).sum() * 12) ** 0.5 == pytest.approx(shown, rel=0.04)


def test_the_usual_square_is_cropped_and_not_resized() -> None:
    images = torch.randint(0, 256, (2, 1, 23, 23), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    generators = [ViewGenerator(PRESETS["natural"], 20, (0.5,), (0.25,), 0, shown) for shown in (20 / 23, None)]
    expected = ((images[:, :, 1:21, 1:21].float() / 255) - 0.5) / 0.25
    for generator in generators:
        assert torch.equal(generator.plain(images), expected)


@pytest.mark.parametrize(("length", "shown", "size"), [(24, 24.0, 8), (31, 26.96, 20), (80, 69.57, 20), (20, 17.4, 20)])
def test_resizing_is_that_of_pillow_with_a_box(length: int, shown: float, size: int) -> None:
    pixels = torch.rand(length, length, generator=torch.Generator().manual_seed(1))
    start = (length - shown) / 2
    box = (start, start, start + shown, start + shown)
    image = Image.fromarray(pixels.numpy())
    expected = torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    found = resize_centre(resize_centre(pixels, 0, shown, size), 1, shown, size)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_resizing_does_not_depend_on_the_number_of_images() -> None:
    pixels = torch.rand(37, 3, 31, 31, generator=torch.Generator().manual_seed(1))
    together = resize_centre(pixels, 2, 26.96, 20)
    assert torch.equal(together[5:6], resize_centre(pixels[5:6], 2, 26.96, 20))
