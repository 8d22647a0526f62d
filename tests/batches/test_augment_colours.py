"""Colours of views, one change at a time, against formulas pixel by pixel."""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace

import pytest
import torch

from tests.views import STILL, noise, views_of
from ttc.batches.augment import uniform

GRAY = (0.299, 0.587, 0.114)


def numbers_of(count: int, column: int) -> list[float]:
    ids = torch.arange(count)
    values: list[float] = uniform(0, torch.zeros_like(ids), ids, 1, 12)[:, 0, column].tolist()
    return values


def luma(pixel: list[float]) -> float:
    return sum(weight * value for weight, value in zip(GRAY, pixel, strict=True)) if len(pixel) == 3 else pixel[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_multiplies(channels: int) -> None:
    images = noise(6, channels, 4)
    found = views_of(images, replace(STILL, jitter=1.0, brightness=0.4))[:, 0]
    for image, view, number in zip(images.float() / 255, found, numbers_of(6, 7), strict=True):
        factor = 1 + 0.4 * (2 * number - 1)
        torch.testing.assert_close(view, (image * factor).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_pulls_to_the_mean_luma(channels: int) -> None:
    images = noise(6, channels, 4)
    found = views_of(images, replace(STILL, jitter=1.0, contrast=0.6))[:, 0]
    for image, view, number in zip(images.double() / 255, found, numbers_of(6, 8), strict=True):
        factor = 1 + 0.6 * (2 * number - 1)
        pixels = image.flatten(1).T.tolist()
        mean = sum(luma(pixel) for pixel in pixels) / len(pixels)
        expected = [[min(1, max(0, mean + factor * (v - mean))) for v in pixel] for pixel in pixels]
        torch.testing.assert_close(view.flatten(1).T, torch.tensor(expected), atol=1e-5, rtol=0)


def test_saturation_pulls_to_the_own_luma() -> None:
    images = noise(6, 3, 4)
    found = views_of(images, replace(STILL, jitter=1.0, saturation=0.8))[:, 0]
    for image, view, number in zip(images.double() / 255, found, numbers_of(6, 9), strict=True):
        factor = 1 + 0.8 * (2 * number - 1)
        pixels = image.flatten(1).T.tolist()
        expected = [[min(1, max(0, luma(p) + factor * (v - luma(p)))) for v in p] for p in pixels]
        torch.testing.assert_close(view.flatten(1).T, torch.tensor(expected), atol=1e-5, rtol=0)


def test_grayscale_leaves_the_luma_alone_and_comes_as_often_as_asked() -> None:
    images = noise(1000, 3, 2)
    found = views_of(images, replace(STILL, grayscale=0.2))[:, 0]
    weights = torch.tensor(GRAY).view(3, 1, 1)
    gray = (found - found.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert abs(float(gray.float().mean()) - 0.2) < 5 * (0.16 / 1000) ** 0.5
    expected = (images.float() / 255 * weights).sum(1, keepdim=True).expand_as(found)
    torch.testing.assert_close(found[gray], expected[gray], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[~gray], images[~gray].float() / 255, atol=1e-5, rtol=0)


def test_hue_turns_the_chroma_and_keeps_luma_and_its_length() -> None:
    # Pale colours, so that nothing is clipped.
    images = (100 + noise(40, 3, 3).int() // 8).to(torch.uint8)
    found = views_of(images, replace(STILL, jitter=1.0, hue=0.1))[:, 0].double()
    pixels = images.double() / 255
    for before, after, number in zip(pixels, found, numbers_of(40, 10), strict=True):
        for old, new in zip(before.flatten(1).T.tolist(), after.flatten(1).T.tolist(), strict=True):
            assert luma(new) == pytest.approx(luma(old), abs=1e-5)
            (_, i0, q0), (_, i1, q1) = yiq(old), yiq(new)
            assert math.hypot(i1, q1) == pytest.approx(math.hypot(i0, q0), abs=1e-5)
            angle = 2 * math.pi * 0.1 * (2 * number - 1)
            turned = (i0 * math.cos(angle) - q0 * math.sin(angle), i0 * math.sin(angle) + q0 * math.cos(angle))
            assert (i1, q1) == pytest.approx(turned, abs=1e-5)


def yiq(pixel: list[float]) -> tuple[float, float, float]:
    """Return YIQ by the NTSC matrix with three digits."""
    r, g, b = pixel
    return luma(pixel), 0.596 * r - 0.274 * g - 0.322 * b, 0.211 * r - 0.523 * g + 0.312 * b


def test_the_chroma_plane_is_that_of_the_standard_library() -> None:
    for pixel in ([1.0, 0.0, 0.0], [0.2, 0.7, 0.4]):
        assert yiq(pixel) == pytest.approx(colorsys.rgb_to_yiq(*pixel), abs=0.01)


def test_jitter_comes_as_often_as_asked() -> None:
    images = noise(1000, 1, 3)
    found = views_of(images, replace(STILL, jitter=0.8, brightness=0.5))[:, 0]
    same = ((found - images.float() / 255).abs() < 1e-5).flatten(1).all(1)
    assert abs(float(same.float().mean()) - 0.2) < 5 * (0.16 / 1000) ** 0.5
