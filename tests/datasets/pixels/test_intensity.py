"""Grey values of any depth: the range of a set, what becomes of each encoding, and which images are refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.datasets.pixels.encodings import ENCODINGS, png, save, write_dicom
from ttc.datasets.pixels.decoding import decode_bytes, decode_file
from ttc.datasets.pixels.intensity import Samples, range_of_set
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.datasets.pixels.survey import Intensity, choose_decoding

SIDE = 12


def picture(seed: int, channels: int = 1) -> NDArray[np.float64]:
    """Return smooth values in [0, 1] that reach both ends, [S, S] or [S, S, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, channels), dtype=np.uint8).squeeze()
    large = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    low, high = large.min(), large.max()
    return (large - low) / (high - low)


def decoding_of(paths: list[Path], *, channels: int = 1, intensity: Intensity = "auto") -> Decoding:
    return choose_decoding(
        [str(path) for path in paths],
        size=SIDE,
        channels=channels,
        framing="crop",
        intensity=intensity,
        dicom_window=None,
    )


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_set_gives_the_same_pixels_in_every_encoding(name: str, tmp_path: Path) -> None:
    """The bytes of an 8-bit file are those of the same picture with 10, 12, 14 or 16 bits, within rounding."""
    pictures = [picture(seed, 3 if "colour" in name else 1) for seed in range(4)]
    paths = [save(each, name, tmp_path / f"{number}") for number, each in enumerate(pictures)]
    channels = 3 if "colour" in name else 1
    decoding = decoding_of(paths, channels=channels)
    for path, each in zip(paths, pictures, strict=True):
        expected = torch.from_numpy((each * 255).round()).reshape(SIDE, SIDE, channels).permute(2, 0, 1)
        found = decode_file(str(path), decoding).double()
        assert (found - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(0, 256), (0, 255, 255)),  # 8 bits in a file of 16
        (np.arange(0, 1024), (0, 1023, 1023)),
        (np.arange(0, 3000), (0, 4095, 4095)),  # fills more than half of 12 bits
        (np.arange(0, 65536, 16), (0, 65535, 65535)),
        (np.arange(0, 400), (2.0, 397.0, None)),  # fills no depth: quantiles
        (np.arange(30_000, 30_201), (30_001, 30_199, None)),
        (np.arange(-1000, 3001), (-980, 2980, None)),  # as computed tomography
        (np.linspace(0, 1, 1001), (0, 1, 1)),
        (np.linspace(0, 250, 1001), (0, 255, 255)),  # bytes saved as numbers
        (np.linspace(0.2, 0.4, 1001), (0.201, 0.399, None)),
        (np.full(50, 7), (7, 8, None)),
    ],
)
def test_range_of_a_set(values: NDArray[np.generic], expected: tuple[float, float, float | None]) -> None:
    found = range_of_set([Samples(values[None], "16-bit", 0, 65535)])
    assert found[2] == expected[2]
    assert found[:2] == pytest.approx(expected[:2], abs=0.5 if values.dtype.kind == "i" else 1e-9)


def test_the_range_is_that_of_all_images_and_not_of_the_widest_values() -> None:
    dark, bright = np.arange(0, 500)[None], np.arange(3000, 4001)[None]
    assert range_of_set([Samples(dark, "16-bit", 0, 65535), Samples(bright, "16-bit", 0, 65535)])[:2] == (0, 4095)
    hot = np.concatenate([np.arange(0, 4096), [60_000]])[None]  # one hot pixel does not make 16 bits
    assert range_of_set([Samples(hot, "16-bit", 0, 65535)])[2] == 4095
    few = np.concatenate([np.arange(0, 600), np.full(40, 4000)])[None]  # bright findings of a dark set are not cut off
    assert range_of_set([Samples(few, "16-bit", 0, 65535)])[1] == 4095


@pytest.mark.parametrize(
    ("intensity", "expected"),
    [("full", [0, 0, 16, 255]), ((0.0, 4095.0), [0, 6, 255, 255]), ((100.0, 4196.0), [0, 0, 249, 255])],
)
def test_the_flag_names_black_and_white(intensity: Intensity, expected: list[int], tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 4095, 65535]], dtype=np.uint16).repeat(4, 0)).save(tmp_path / "a.png")
    decoding = decoding_of([tmp_path / "a.png"], intensity=intensity)
    found = decode_file(str(tmp_path / "a.png"), replace(decoding, size=4))
    assert found[0, 0].tolist() == expected


def images_of_depths(folder: Path) -> dict[str, Path]:
    values = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
    made = {
        "8-bit": (values * 255).round().astype(np.uint8),
        "16-bit": (values * 4095).round().astype(np.uint16),
        "float": values.astype(np.float32),
        "signed 32-bit": (values * 4000 - 1000).astype(np.int32),
    }
    for name, pixels in made.items():
        Image.fromarray(pixels).save(folder / f"{name}.tif")
    Image.fromarray(made["8-bit"]).save(folder / "jpeg.jpg")
    return {name: folder / f"{name}.tif" for name in made} | {"jpeg": folder / "jpeg.jpg"}


def test_another_depth_than_the_set_is_refused_by_name(tmp_path: Path) -> None:
    files = images_of_depths(tmp_path)
    for of_set, path in files.items():
        decoding = decoding_of([path])
        for name, other in files.items():
            same = {"jpeg": "8-bit"}.get(of_set, of_set) == {"jpeg": "8-bit"}.get(name, name)
            if same:
                assert decode_file(str(other), decoding).float().std() > 60
                continue
            with pytest.raises(ValueError, match=f"cannot read image {other}: it has .* samples.*--intensity full or"):
                decode_file(str(other), decoding)
        for name, other in files.items():  # what --intensity says holds for every depth
            assert decode_file(str(other), decoding_of([path], intensity="full")).shape == (1, SIDE, SIDE), name


def test_another_depth_in_the_same_type_is_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 400).reshape(20, 20)
    for name, top in (("12", 4095), ("14", 16383)):
        Image.fromarray((values * top).astype(np.uint16)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"14.png: its values reach 16383, those of the training images 4095"):
        decode_file(str(tmp_path / "14.png"), decoding_of([tmp_path / "12.png"]))
    hot = np.asarray(Image.open(tmp_path / "12.png")).copy()
    hot[0, 0] = 60_000
    Image.fromarray(hot).save(tmp_path / "hot.png")
    decode_file(str(tmp_path / "hot.png"), decoding_of([tmp_path / "12.png"]))


def tiff(values: NDArray[np.generic], photometric: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    content = bytearray(file.getvalue())
    # Pillow would invert bytes while it writes them.
    place = next(at for at in range(len(content) - 12) if content[at : at + 4] == b"\x06\x01\x03\x00")
    content[place + 8 : place + 10] = photometric.to_bytes(2, "little")
    return bytes(content)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_is_zero_is_inverted_at_every_depth(kind: type[np.generic]) -> None:
    values = np.arange(16).reshape(4, 4).astype(kind)
    decoding = Decoding(4, 1, black=0.0, white=15.0)
    zero_is_black, zero_is_white = (decode_bytes(tiff(values, each), decoding)[0] for each in (1, 0))
    assert torch.equal(zero_is_white, 255 - zero_is_black)
    assert zero_is_black.float().std() > 4


def test_sixteen_bit_colours_have_their_low_byte(tmp_path: Path) -> None:
    """Pillow alone keeps the high byte of colours, which makes 12 bits nearly black."""
    for name in ("12-bit colour PNG", "12-bit colour TIFF"):
        path = save(picture(0, 3), name, tmp_path / name)
        with Image.open(path) as image:
            assert np.asarray(image).max() <= 16
        assert decode_file(str(path), decoding_of([path], channels=3)).max() == 255


def test_alpha_of_sixteen_bits_is_laid_over_white() -> None:
    colours = np.zeros((4, 4, 4), dtype=">u2")
    colours[..., 0], colours[:2, :, 3] = 4095, 65535
    found = decode_bytes(png(colours), Decoding(4, 3, black=0.0, white=4095.0))
    assert found[:, 0, 0].tolist() == [255, 0, 0]
    assert found[:, 3, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_as_others(orientation: int, tmp_path: Path) -> None:
    values = np.zeros((8, 8), dtype=np.uint8)
    values[:3, :3], values[:3, 5:] = 250, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[0x0112] == orientation
    found = decode_file(str(tmp_path / "b.png"), Decoding(8, 1, black=0.0, white=65535.0))
    assert torch.equal(found, decode_file(str(tmp_path / "a.png"), Decoding(8, 1)))


def test_nan_is_no_grey_value(tmp_path: Path) -> None:
    values = np.ones((4, 4), dtype=np.float32)
    values[1, 1] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="some of its values are NaN"):
        decode_file(str(tmp_path / "a.tif"), Decoding(4, 1))


def test_checkpoints_of_earlier_versions_keep_the_high_byte(tmp_path: Path) -> None:
    values = (np.arange(64, dtype=np.uint16) * 1023).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    (tmp_path / "white.tif").write_bytes(tiff(values, 0))
    for name in ("deep.png", "white.tif"):  # which did not heed "white is zero" for 16 bits
        found = decode_file(str(tmp_path / name), Decoding(8, 1, edition=1))
        assert torch.equal(found[0], torch.from_numpy((values >> 8).astype(np.uint8)))
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point samples have no known range"):
        decode_file(str(tmp_path / "float.tif"), Decoding(8, 1, edition=1))


def test_dicom_without_window_is_read_by_the_range_of_the_set(tmp_path: Path) -> None:
    values = (picture(3) * 2000 - 900).round().astype(np.int16)
    write_dicom(tmp_path / "a.dcm", values, bits=16)
    decoding = decoding_of([tmp_path / "a.dcm"])
    assert decoding.depths == ("signed 16-bit",)
    found = decode_file(str(tmp_path / "a.dcm"), decoding)[0].numpy()
    low, high = np.quantile(values, (0.005, 0.995))
    assert np.abs(found - ((values - low) / (high - low) * 255).clip(0, 255)).max() <= 1
