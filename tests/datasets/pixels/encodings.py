"""Write one picture in the encodings that people have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ENCODINGS = (
    "8-bit PNG",
    "10-bit PNG",
    "12-bit PNG",
    "14-bit PNG",
    "16-bit PNG",
    "8-bit colour PNG",
    "12-bit colour PNG",
    "16-bit alpha PNG",
    "8-bit palette PNG",
    "8-bit TIFF",
    "12-bit TIFF",
    "12-bit colour TIFF",
    "float TIFF",
    "12-bit MONOCHROME1 DICOM",
    "12-bit MONOCHROME2 DICOM",
    "16-bit MONOCHROME2 DICOM",
    "8-bit colour BMP",
)


def png(values: NDArray[np.generic]) -> bytes:
    """Return a PNG of 16-bit samples [H, W] or [H, W, C], which Pillow cannot write in colour."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = values.astype(">u2").reshape(height, -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def write_dicom(
    path: Path,
    values: NDArray[np.generic],
    *,
    bits: int,
    photometric: str = "MONOCHROME2",
    more: Mapping[str, object] | None = None,
) -> None:
    """Write an uncompressed DICOM file of values [H, W], or [F, H, W] for several frames; skip without pydicom."""
    pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = values.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, photometric
    file.BitsAllocated = 8 * values.dtype.itemsize
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        file.NumberOfFrames = len(values)
    file.PixelData = values.tobytes()
    for name, value in (more or {}).items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)


def save(picture: NDArray[np.float64], name: str, path: Path) -> Path:
    """Save values in [0, 1], [H, W] or [H, W, 3], in an encoding; return the file."""
    depth, kind = name.split()[0], name.split()[-1]
    path = path.with_name(
        path.name.replace(" ", "-") + {"PNG": ".png", "TIFF": ".tif", "DICOM": ".dcm", "BMP": ".bmp"}[kind]
    )
    if depth == "float":
        Image.fromarray(picture.astype(np.float32)).save(path)
        return path
    bits = int(depth.removesuffix("-bit"))
    values = (picture * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
    if kind == "DICOM":
        photometric = name.split()[1]
        stored = 2**bits - 1 - values if photometric == "MONOCHROME1" else values
        write_dicom(path, stored.astype(values.dtype), bits=bits, photometric=photometric)
    elif "gray-as-RGB" in name:
        Image.fromarray(values).convert("RGB").save(path)
    elif "alpha" in name:
        path.write_bytes(png(np.stack([values, np.full_like(values, 65535)], axis=2)))
    elif "palette" in name:
        Image.fromarray(values).convert("P").save(path)
    elif bits > 8 and values.ndim == 3 and kind == "PNG":
        path.write_bytes(png(values))
    elif bits > 8 and values.ndim == 3:
        import tifffile

        tifffile.imwrite(path, values, photometric="rgb")
    else:
        Image.fromarray(values).save(path)
    return path
