"""From samples of any depth to bytes, and the range of a whole set.

8-bit samples stay as they are. All others are mapped linearly: one value becomes black, one becomes white, for every
image of the set alike, so that grey values can be compared between images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttc.datasets.pixels.preprocessing import Decoding

EIGHT_BIT = "8-bit"
WINDOWED = "windowed"
QUANTILES = (0.005, 0.995)
FILES, VALUES = 256, 20_000
"""Of the sample behind a set's range: files, and values of each."""
FULL_SHARE = 0.5
"""A set whose values span this share of a depth is taken to fill it."""
DEPTHS_BITS = (8, 10, 12, 14, 16)
MOST_BEYOND = 0.005
"""Share of an image's values that may lie above the set's depth, as a few hot pixels do."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The values of an image of more than 8 bits, not yet turned upright.

    Attributes:
        values: [H, W] or [H, W, C], numbers of any type.
        depth: "16-bit", "signed 16-bit", "32-bit", "signed 32-bit", "float", "rescaled" (DICOM in physical units) or
            "windowed" (DICOM, mapped by its own window: black is 0, white is 1).
        black, white: ends of the type.
        inverted: whether the largest value is black.
        alpha: [H, W] uint8, 255 is opaque, or None.
    """

    values: NDArray[Any]
    depth: str
    black: float
    white: float
    inverted: bool = False
    alpha: NDArray[np.uint8] | None = None


def to_bytes(samples: Samples, decoding: Decoding) -> NDArray[np.uint8]:
    """Map samples to bytes by the range of the set.

    Raises:
        ValueError: the image has NaN, or another depth than the set.
    """
    values = samples.values
    check_depth(samples.depth, decoding)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("some of its values are NaN")
    black, white = samples.black, samples.white
    if samples.depth != WINDOWED:
        if decoding.black is not None and decoding.white is not None:
            black, white = decoding.black, decoding.white
        if decoding.largest is not None and (values > decoding.largest).mean() > MOST_BEYOND:
            raise ValueError(
                f"its values reach {values.max():g}, those of the training images {decoding.largest:g}: another depth; "
                "convert it, or pass --intensity full or LOW HIGH"
            )
    wide = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    scaled: NDArray[np.uint8] = ((wide - black) * (255 / (white - black))).clip(0, 255).round().astype(np.uint8)
    return 255 - scaled if samples.inverted else scaled


def check_depth(depth: str, decoding: Decoding) -> None:
    """Raise ValueError when a file has a depth that the set does not have."""
    if decoding.depths is not None and depth not in decoding.depths:
        raise ValueError(
            f"it has {depth} samples, the training images {' or '.join(decoding.depths)}; convert it, or pass "
            "--intensity full or LOW HIGH"
        )


def range_of_set(images: Sequence[Samples]) -> tuple[float, float, float | None]:
    """Return the range of a sample of images of more than 8 bits, and the largest value of the depth that they fill.

    The range is from the 0.5 % to the 99.5 % quantile of all values. Where it spans half of 8, 10, 12, 14 or 16 bits,
    or of [0, 1], it is widened to that depth: the image is then the same as if it had been saved with 8 bits.
    """
    by_image = [thinned for image in images if len(thinned := _thinned(image.values))]
    if not by_image:
        return 0.0, 1.0, None
    values = np.concatenate(by_image)
    low, high = (float(quantile) for quantile in np.quantile(values, QUANTILES))
    # What `to_bytes` will compare with the depth, with some room: no image of the sample may fail there.
    largest = max(float(np.quantile(thinned, 1 - MOST_BEYOND / 2)) for thinned in by_image)
    whole = all(image.values.dtype.kind in "iu" for image in images)
    tops = ([] if whole else [1.0]) + [2.0**bits - 1 for bits in DEPTHS_BITS]
    top = next((value for value in tops if largest <= value), None)
    if top is not None and low >= 0 and high - low >= FULL_SHARE * top:
        return 0.0, top, top
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0, None


def _thinned(values: NDArray[Any]) -> NDArray[np.float64]:
    flat = values.reshape(-1)
    thinned = flat[:: max(1, len(flat) // VALUES)].astype(np.float64)
    return thinned[np.isfinite(thinned)]
