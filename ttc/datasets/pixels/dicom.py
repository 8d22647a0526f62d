"""DICOM images, by pydicom: what a viewer would show, and nothing about the patient.

Only the elements that decide pixels are read, so that no name, id or date can reach a message, a table or a checkpoint.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ttc.datasets.pixels.intensity import EIGHT_BIT, WINDOWED, Samples

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE_BYTES, MAGIC = 128, b"DICM"
_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_PHOTOMETRIC = re.compile("MONOCHROME[12]|PALETTE COLOR|RGB|YBR_[A-Z0-9_]{3,12}")
_NEEDED = ("PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored")
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_FAR = 1e12


def is_dicom(content: bytes) -> bool:
    """Tell whether a file begins as DICOM files do."""
    return content[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MAGIC)] == MAGIC


def read_header(file: BinaryIO, window: tuple[float, float] | None = None) -> tuple[int, int, str, str]:
    """Return width, height, depth (as `Samples` names it) and mode of a DICOM image, without decoding it.

    Args:
        file: opened at its beginning.
        window: `--dicom-window`, or None.

    Raises:
        ValueError: pydicom is missing, or the file holds no image.
    """
    header = _header(file, 1)
    mode = f"DICOM {header.PhotometricInterpretation}"
    return int(header.Columns), int(header.Rows), _depth(header, window), mode


def read_samples(content: bytes, frame: int | None, window: tuple[float, float] | None) -> Samples | NDArray[np.uint8]:
    """Decode a frame.

    Args:
        content: of the file.
        frame: number, from 1; None for the first.
        window: centre and width in place of the file's own, or None.

    Returns:
        Values with the file's rescale or modality table applied, and its VOI table or window where it has one; bytes
        [H, W, 3] for colour images, [H, W] for gray ones of 8 bits that need no mapping.

    Raises:
        ValueError: pydicom or one of its plugins is missing, or the file holds no such frame; quotes no header.
    """
    number = 1 if frame is None else frame
    header = _header(io.BytesIO(content), number)
    stored = _decoded(content, header, number - 1)
    from pydicom.pixels import processing

    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return _high_byte(processing.apply_color_lut(stored, header), 16)
    if stored.ndim == 3:
        return _high_byte(stored, int(header.BitsStored))
    inverted = photometric == "MONOCHROME1"
    depth = _depth(header, window)
    if depth == EIGHT_BIT:
        return 255 - stored.astype(np.uint8) if inverted else stored.astype(np.uint8)
    values = processing.apply_modality_lut(stored, header)
    if depth == WINDOWED:
        return Samples(_windowed(values, header, window), WINDOWED, 0.0, 1.0, inverted)
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64)
    if depth == "rescaled" and not header.get("ModalityLUTSequence"):
        ends = np.sort(processing.apply_rescale(ends, header))
    return Samples(values, depth, float(ends[0]), float(ends[1]), inverted)


def _high_byte(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = (colours if colours.dtype == np.uint8 else colours >> max(0, bits - 8)).astype(np.uint8)
    return out


def _header(file: BinaryIO, frame: int) -> Dataset:
    """Read the elements that decide pixels; those of the frame take the place of the file's."""
    try:
        import pydicom
    except ImportError:
        raise ValueError("it is a DICOM file, which needs the package pydicom; pip install pydicom") from None
    # Both would quote what is in the header.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    try:
        header = pydicom.dcmread(file, specific_tags=_TAGS, stop_before_pixels=True)
        frames = int(header.get("NumberOfFrames") or 1)
        missing = [name for name in _NEEDED if header.get(name) is None]
        if not missing and not _PHOTOMETRIC.fullmatch(str(header.PhotometricInterpretation)):
            missing = ["known PhotometricInterpretation"]
        _take_frame_elements(header, frame - 1)
    except Exception as error:  # a broken header fails in any way; the reason may quote it
        raise ValueError(f"its header is broken ({type(error).__name__})") from None
    if missing:
        raise ValueError(f"the DICOM file holds no image: it has no {missing[0]}")
    if not 1 <= frame <= frames:
        raise ValueError(f"frame {frame} of {frames} is wanted")
    return header


def _take_frame_elements(header: Dataset, index: int) -> None:
    """Copy rescale and window from the functional groups of enhanced images."""
    groups = [header.get("SharedFunctionalGroupsSequence") or [], header.get("PerFrameFunctionalGroupsSequence") or []]
    chosen = [*groups[0][:1], *groups[1][index : index + 1]]
    for group in chosen:
        for name in _FRAME_GROUPS:
            for element in (group.get(name) or [{}])[0]:
                header[element.tag] = element


def _decoded(content: bytes, header: Dataset, index: int) -> NDArray[Any]:
    from pydicom.pixels import get_decoder, pixel_array

    try:
        syntax = header.file_meta.TransferSyntaxUID
    except AttributeError:
        raise ValueError("its header names no transfer syntax") from None
    decoder, plugins = None, ""
    try:
        if syntax.is_encapsulated:
            decoder = get_decoder(syntax)
            plugins = "; ".join(decoder.missing_dependencies)
        if decoder is None or decoder.is_available:
            found: NDArray[Any] = pixel_array(io.BytesIO(content), specific_tags=[], index=index)
            return found
        reason = "is missing a plugin of pydicom"
    except Exception as error:  # decoders raise a dozen unrelated types; the reason may quote the header
        reason = f"failed ({type(error).__name__})"
    if decoder is None:
        raise ValueError(f"decoding its DICOM pixels {reason}")
    remedy = f"; pip install what one of these needs: {plugins}" if plugins else ""
    raise ValueError(f"decoding its DICOM pixels, {syntax.name}, {reason}{remedy}")


def _depth(header: Dataset, window: tuple[float, float] | None) -> str:
    if int(header.get("SamplesPerPixel", 1)) > 1 or header.PhotometricInterpretation == "PALETTE COLOR":
        return EIGHT_BIT
    if window is not None or header.get("VOILUTSequence") or _has_window(header):
        return WINDOWED
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    rescaled = bool(header.get("ModalityLUTSequence")) or float(slope or 1) != 1 or float(intercept or 0) != 0
    if rescaled:
        return "rescaled"
    if int(header.BitsStored) <= 8 and not int(header.get("PixelRepresentation", 0)):
        return EIGHT_BIT if int(header.BitsStored) == 8 else "16-bit"
    size = 32 if int(header.BitsAllocated) > 16 else 16
    return f"signed {size}-bit" if int(header.get("PixelRepresentation", 0)) else f"{size}-bit"


def _has_window(header: Dataset) -> bool:
    return header.get("WindowCenter") not in (None, "") and header.get("WindowWidth") not in (None, "")


def _windowed(values: NDArray[Any], header: Dataset, window: tuple[float, float] | None) -> NDArray[np.float64]:
    """Map values to [0, 1] by a window (DICOM PS3.3 C.11.2.1.2) or a VOI table."""
    from pydicom.pixels import processing

    if window is not None:
        centre, width = window
        return ((values.astype(np.float64) - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5).clip(0, 1)
    table = header.get("VOILUTSequence")
    if table:
        shown = processing.apply_voi(values, header)
        ends = np.array([0.0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1])
    else:
        with np.errstate(over="ignore"):
            shown = processing.apply_windowing(values, header)
            # pydicom chooses the ends of the result from other elements; values far outside show them.
            ends = processing.apply_windowing(np.array([-_FAR, _FAR]), header)
    scaled: NDArray[np.float64] = ((shown.astype(np.float64) - ends[0]) / (ends[1] - ends[0])).clip(0, 1)
    return scaled
