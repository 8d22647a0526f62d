"""What a sample of a set's files says about all of them: depth, range of values, area that is cut off, colour.

Legend: N files or images, H x W pixels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

from torch import Tensor

from ttc.datasets.pixels import dicom
from ttc.datasets.pixels.deep import read_samples
from ttc.datasets.pixels.files import Header, open_image, read_header, read_regular, split_frame
from ttc.datasets.pixels.framing import area_cut_off
from ttc.datasets.pixels.intensity import EIGHT_BIT, WINDOWED, Samples, range_of_set
from ttc.datasets.pixels.preprocessing import Decoding

log = logging.getLogger("ttc")

GRAY_SHARE = 0.95
"""Share of the images that must be without colour for a set to count as gray."""
_EQUAL_LEVELS, _EQUAL_PIXELS = 8, 0.98
"""Channels of a pixel that differ by no more than compression does, and the share of a picture's pixels with such: a
coloured mark or a scale in a corner makes no photograph."""

Intensity = str | tuple[float, float]
"""`--intensity`: "auto", "full", or the values of black and white."""


def headers_of(paths: Sequence[str], dicom_window: tuple[float, float] | None = None) -> list[Header | None]:
    """Look at files without decoding them; None where that fails: the decoder reports this file, or skips it."""
    headers: list[Header | None] = []
    for path in paths:
        try:
            headers.append(read_header(path, dicom_window))
        except Exception as error:  # a broken header fails in any way
            log.debug("header of %s is unreadable: %s", path, error)
            headers.append(None)
    return headers


def deep_samples(path: str, window: tuple[float, float] | None = None) -> Samples | None:
    """Decode the values of a file of more than 8 bits; None for other files, and for broken ones."""
    try:
        content = read_regular(path)
        if dicom.is_dicom(content):
            samples = dicom.read_samples(content, split_frame(path)[1], window)
            return samples if isinstance(samples, Samples) else None
        with open_image(io.BytesIO(content)) as image:
            return read_samples(image, content)
    except Exception as error:  # as above
        log.debug("values of %s are unreadable: %s", path, error)
        return None


def choose_decoding(
    paths: Sequence[str],
    *,
    size: int,
    channels: int,
    framing: str,
    intensity: Intensity,
    dicom_window: tuple[float, float] | None,
) -> Decoding:
    """Decide how the files of a set are decoded.

    Args:
        paths: a sample of the training files.
        size: side of the stored square.
        channels: 1 or 3.
        framing: `--framing`.
        intensity: `--intensity`.
        dicom_window: `--dicom-window`.
    """
    common = Decoding(size, channels, framing, dicom_window=dicom_window)
    if intensity == "full":
        return common
    if not isinstance(intensity, str):
        black, white = intensity
        return Decoding(size, channels, framing, black=black, white=white, dicom_window=dicom_window)
    depths = {header.depth for header in headers_of(paths, dicom_window) if header is not None}
    if not depths:
        return common
    mapped = depths - {EIGHT_BIT, WINDOWED}
    if not mapped:
        return Decoding(size, channels, framing, depths=tuple(sorted(depths)), dicom_window=dicom_window)
    samples = [samples for path in paths if (samples := deep_samples(path, dicom_window)) and samples.depth in mapped]
    if not samples:
        return common
    black, white, largest = range_of_set(samples)
    return Decoding(size, channels, framing, black, white, largest, tuple(sorted(depths)), dicom_window)


def mean_area_cut_off(headers: Sequence[Header | None], framing: str) -> float:
    """Return the share of an image's area that framing leaves out, on average over the images."""
    shares = [area_cut_off(header.width, header.height, framing) for header in headers if header is not None]
    return sum(shares) / len(shares) if shares else 0.0


def share_without_colour(images_N3HW: Tensor) -> float:
    """Return the share of images (uint8 [N, 3, H, W]) whose channels are equal but for compression."""
    spread_NHW = images_N3HW.amax(dim=1) - images_N3HW.amin(dim=1)
    gray_N = (spread_NHW <= _EQUAL_LEVELS).flatten(1).float().mean(dim=1) >= _EQUAL_PIXELS
    return float(gray_N.float().mean())
