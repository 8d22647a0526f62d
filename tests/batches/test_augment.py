"""Views: random numbers, geometry against per-pixel formulas, presets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.views import STILL, noise, views_of
from ttc.batches.augment import PRESETS, ViewGenerator, uniform

# Random numbers.


def test_numbers_depend_on_seed_draw_id_and_view_only() -> None:
    ids, draws = torch.tensor([5, 9, 123456789, 7]), torch.tensor([0, 3, 1 << 30, 2])
    all_at_once = uniform(3, draws, ids, 2, 12)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(uniform(3, draws[order], ids[order], 2, 12), all_at_once[order])
    alone = [uniform(3, draws[i : i + 1], ids[i : i + 1], 2, 12) for i in range(4)]
    assert torch.equal(torch.cat(alone), all_at_once)
    for other in (uniform(4, draws, ids, 2, 12), uniform(3, draws + 1, ids, 2, 12), uniform(3, draws, ids + 1, 2, 12)):
        assert (other != all_at_once).float().mean() > 0.99
    assert (all_at_once[:, 0] != all_at_once[:, 1]).float().mean() > 0.9
    if torch.cuda.is_available():
        assert torch.equal(uniform(3, draws.cuda(), ids.cuda(), 2, 12).cpu(), all_at_once)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_numbers_are_uniform_and_independent(seed: int) -> None:
    count = 4000
    ids = torch.arange(count)
    table = uniform(seed, torch.zeros_like(ids), ids, 2, 6).double()
    assert table.min() >= 0
    assert table.max() < 1
    flat = table.flatten()
    bound = 5 / len(flat) ** 0.5
    assert abs(float(flat.mean()) - 1 / 2) < bound * 0.29
    assert abs(float(flat.square().mean()) - 1 / 3) < bound * 0.30
    assert abs(float(flat.pow(3).mean()) - 1 / 4) < bound * 0.29
    share = torch.histc(flat, 16, 0, 1) / len(flat)
    assert (share - 1 / 16).abs().max() < bound * 0.25
    # Neighbours in any index: views, numbers, ids, draws, seeds.
    later = uniform(seed, torch.ones_like(ids), ids, 2, 6).double()
    reseeded = uniform(seed + 1, torch.zeros_like(ids), ids, 2, 6).double()
    pairs = [
        (table[:, 0], table[:, 1]),
        (table[..., :-1], table[..., 1:]),
        (table[:-1], table[1:]),
        (table, later),
        (table, reseeded),
        (table[1:], later[:-1]),
    ]
    for first, second in pairs:
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / first.numel() ** 0.5


def test_views_do_not_depend_on_the_batch() -> None:
    images, ids, draws = noise(6, 3, 12), torch.tensor([4, 8, 15, 16, 23, 42]), torch.tensor([0, 1, 2, 3, 4, 5])
    made = ViewGenerator(replace(PRESETS["natural"], rotation=20), 9, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), seed=7)
    everything = made.views(images, ids, draws, 3)
    assert everything.shape == (6, 3, 3, 9, 9)
    order = torch.tensor([3, 1])
    torch.testing.assert_close(made.views(images[order], ids[order], draws[order], 3), everything[order])
    # The first views stay when there are more of them.
    assert not torch.equal(everything[:, 0], everything[:, 1])


def test_making_views_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    views_of(noise(4, 3, 8), PRESETS["natural"], views=2)
    assert torch.equal(before, torch.get_rng_state())


# Geometry. The value of a pixel is its place, so that a view tells where it was read.


def places(count: int, height: int, width: int) -> Tensor:
    """Images whose first channel is x and whose second is y, in pixels times 4."""
    x, y = 4 * torch.arange(width).expand(height, width), 4 * torch.arange(height)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros_like(x)]).to(torch.uint8).expand(count, 3, height, width)


def read_places(views: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y in pixels from views of `places`."""
    return views[:, 0, 0] * 255 / 4, views[:, 0, 1] * 255 / 4


def naive_crop(image: Tensor, left: float, top: float, width: float, height: float, size: int) -> Tensor:
    """Resize a crop with explicit loops: bilinear, half-pixel centres, border pixels repeated."""
    out = torch.zeros(image.shape[0], size, size)
    for row in range(size):
        for column in range(size):
            y = top + (row + 0.5) * height / size - 0.5
            x = left + (column + 0.5) * width / size - 0.5
            y, x = min(max(y, 0), image.shape[1] - 1), min(max(x, 0), image.shape[2] - 1)
            y0, x0 = min(int(y), image.shape[1] - 2), min(int(x), image.shape[2] - 2)
            fy, fx = y - y0, x - x0
            block = image[:, y0 : y0 + 2, x0 : x0 + 2]
            weights = torch.tensor([[(1 - fy) * (1 - fx), (1 - fy) * fx], [fy * (1 - fx), fy * fx]])
            out[:, row, column] = (block * weights).sum((1, 2))
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_crops_agree_with_explicit_loops(seed: int) -> None:
    low, high, ratio = 0.3, 0.9, 1.25
    augmentation = replace(STILL, scale=(low, high), ratio=(1 / ratio, ratio))
    images = noise(5, 1, 10, seed)
    found = views_of(images, augmentation, size=7, seed=seed)[:, 0]
    numbers = uniform(seed, torch.zeros(5, dtype=torch.int64), torch.arange(5), 1, 12)[:, 0]
    for image, view, (area, shape, x, y, *_) in zip(images.float() / 255, found, numbers.tolist(), strict=True):
        area = low + (high - low) * area
        aspect = math.exp(math.log(ratio) * (2 * shape - 1))
        width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
        if width == 1:
            height = area
        if height == 1:
            width = area
        expected = naive_crop(image, 10 * (1 - width) * x, 10 * (1 - height) * y, 10 * width, 10 * height, 7)
        torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0), (0.5, 0.6), (0.9, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("shape", [(40, 40), (30, 60)])
def test_crops_have_area_and_ratio_within_bounds_and_lie_inside(
    scale: tuple[float, float], shape: tuple[int, int]
) -> None:
    size, (height, width) = 10, shape
    x, y = read_places(views_of(places(3000, height, width), replace(STILL, scale=scale, ratio=(3 / 4, 4 / 3)), size))
    # Distance of two inner output pixels that no border clamps, extended to the whole crop.
    crop_w, crop_h = (x[:, 5, 6] - x[:, 5, 5]) * size, (y[:, 6, 5] - y[:, 5, 5]) * size
    area = crop_w * crop_h / (height * width)
    assert area.min() > scale[0] - 1e-3
    assert area.max() < scale[1] + 1e-3
    if scale[1] - scale[0] > 0.05:
        assert abs(float(area.mean()) - sum(scale) / 2) < 5 * (scale[1] - scale[0]) / 12**0.5 / 3000**0.5
        assert area.max() - area.min() > 0.95 * (scale[1] - scale[0])
    # Where the ratio would leave the image the image's own shape bounds it.
    ratio = crop_w / crop_h
    assert ratio.min() > min(3 / 4, width / height) - 1e-2
    assert ratio.max() < max(4 / 3, width / height) + 1e-2
    left, right = x[:, 5, 5] + 0.5 - 5.5 * crop_w / size, x[:, 5, 5] + 0.5 + 4.5 * crop_w / size
    top, bottom = y[:, 5, 5] + 0.5 - 5.5 * crop_h / size, y[:, 5, 5] + 0.5 + 4.5 * crop_h / size
    assert min(left.min(), top.min()) > -0.02
    assert right.max() < width + 0.02
    assert bottom.max() < height + 0.02
    if scale == (0.2, 1.0):
        assert left.min() < 0.2 < 0.3 * width < left.max()


@pytest.mark.parametrize("channels", [1, 3])
def test_without_changes_a_view_is_the_image(channels: int) -> None:
    images = noise(4, channels, 9)
    for augmentation in (STILL, replace(STILL, ratio=(3 / 4, 4 / 3))):
        found = views_of(images, augmentation, views=2)
        torch.testing.assert_close(found, (images.float() / 255)[:, None].expand_as(found), atol=2e-6, rtol=0)


def test_a_flip_is_an_exact_mirror_and_comes_as_often_as_asked() -> None:
    images = noise(2000, 1, 6)
    pixels = images.float() / 255
    always = views_of(images, replace(STILL, flip=1.0))[:, 0]
    torch.testing.assert_close(always, pixels.flip(3), atol=2e-6, rtol=0)
    mirrored = ((views_of(images, replace(STILL, flip=0.3))[:, 0] - pixels.flip(3)).abs() < 1e-5).all(3).all(2).all(1)
    assert abs(float(mirrored.float().mean()) - 0.3) < 5 * (0.21 / 2000) ** 0.5


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_rotations_have_the_drawn_angle_about_the_centre(flip: float) -> None:
    size, largest = 21, 40.0
    found = views_of(places(500, size, size), replace(STILL, rotation=largest, flip=flip))
    x, y = read_places(found)
    middle = size // 2
    torch.testing.assert_close(x[:, middle, middle], torch.full((500,), float(middle)), atol=1e-3, rtol=0)
    torch.testing.assert_close(y[:, middle, middle], torch.full((500,), float(middle)), atol=1e-3, rtol=0)
    # One step to the right in the view is a step of length one, at the angle, in the image.
    sign = -1.0 if flip else 1.0
    step_x, step_y = sign * (x[:, middle, middle + 1] - middle), sign * (y[:, middle, middle + 1] - middle)
    torch.testing.assert_close(step_x.hypot(step_y), torch.ones(500), atol=1e-3, rtol=0)
    down_x, down_y = x[:, middle + 1, middle] - middle, y[:, middle + 1, middle] - middle
    torch.testing.assert_close(torch.stack([down_x, down_y]), torch.stack([-step_y, step_x]), atol=1e-3, rtol=0)
    angle = torch.rad2deg(torch.atan2(step_y, step_x))
    numbers = uniform(0, torch.zeros(500, dtype=torch.int64), torch.arange(500), 1, 12)[:, 0, 5]
    torch.testing.assert_close(angle, largest * (2 * numbers - 1), atol=0.1, rtol=0)
    assert angle.abs().max() > 0.95 * largest


def test_plain_is_the_normalised_centre() -> None:
    images = noise(3, 3, 11)
    made = ViewGenerator(PRESETS["natural"], 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), seed=0)
    found = made.plain(images)
    for channel, (mean, std) in enumerate([(0.5, 0.2), (0.4, 0.3), (0.3, 0.4)]):
        expected = (images[:, channel, 1:9, 1:9].float() / 255 - mean) / std
        torch.testing.assert_close(found[:, channel], expected)
    assert torch.equal(made.plain(images[:, :, 1:9, 1:9]), found)


def test_strength_zero_switches_colours_off() -> None:
    for name, preset in PRESETS.items():
        still = replace(preset.stronger(0), scale=(1.0, 1.0), flip=0.0, rotation=0.0)
        images = noise(20, 3, 6)
        torch.testing.assert_close(views_of(images, still)[:, 0], images.float() / 255, atol=1e-5, rtol=0, msg=name)
    assert PRESETS["natural"].stronger(0.5).brightness == pytest.approx(0.2)
    assert PRESETS["natural"].stronger(0.5).grayscale == pytest.approx(0.1)
    assert PRESETS["natural"].stronger(9).grayscale == 1.0
    assert PRESETS["natural"].stronger(0.5).scale == PRESETS["natural"].scale


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_normalised_views_of_any_channels(name: str, channels: int) -> None:
    images = noise(64, channels, 16)
    made = ViewGenerator(PRESETS[name], 8, (0.5,) * channels, (0.25,) * channels, seed=1)
    ids = torch.arange(64)
    found = made.views(images, ids, ids, 2)
    assert found.shape == (64, 2, channels, 8, 8)
    assert found.dtype == torch.float32
    assert found.min() >= -2
    assert found.max() <= 2
    assert torch.equal(found[:, 0], found[:, 1]) == (name == "none")


def test_presets_of_the_paper() -> None:
    natural, cardiac = PRESETS["natural"], PRESETS["cardiac"]
    assert (natural.scale, natural.flip, natural.jitter, natural.grayscale) == ((0.2, 1.0), 0.5, 0.8, 0.2)
    assert (natural.brightness, natural.contrast, natural.saturation, natural.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (cardiac.scale, cardiac.flip, cardiac.rotation, cardiac.hue) == ((0.2, 1.0), 0.5, 45.0, 0.0)
    assert (cardiac.brightness, cardiac.contrast, cardiac.saturation) == (0.5, 0.5, 0.5)
    assert PRESETS["digits"].flip == 0
