from __future__ import annotations

import logging
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ttc.datasets.images import FileImages, find_bad_images, in_threads, tensor_images
from ttc.datasets.pixels import decoding, files
from ttc.datasets.pixels.files import count_channels
from ttc.datasets.pixels.preprocessing import Decoding, stored_size

SIZE = 8


def _decode(path: Path, channels: int = 3, size: int = SIZE) -> torch.Tensor:
    decoded = FileImages([str(path)], Decoding(size, channels))[torch.tensor([0])][0]
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (channels, size, size)
    return decoded


def _gradient(width: int, height: int) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def test_rgb_png_of_the_stored_size_is_returned_as_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert torch.equal(_decode(tmp_path / "a.png"), torch.from_numpy(pixels).permute(2, 0, 1))


def test_centre_square_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((SIZE, 3 * SIZE), dtype=np.uint8)
    pixels[:, SIZE : 2 * SIZE] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(np.ascontiguousarray(pixels.T)).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        # One pixel at the border sees its neighbour when the filter support is wider than zero.
        assert (_decode(tmp_path / name, channels=1)[:, 1:-1, 1:-1] == 200).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checker).save(tmp_path / "checker.png")
    decoded = _decode(tmp_path / "checker.png", channels=1).float()
    assert (decoded - 127.5).abs().max() < 20


def test_gray_becomes_three_equal_channels_and_colour_becomes_luma(tmp_path: Path) -> None:
    Image.fromarray(_gradient(SIZE, SIZE)).save(tmp_path / "gray.png")
    decoded = _decode(tmp_path / "gray.png")
    assert torch.equal(decoded[0], decoded[1])
    assert torch.equal(decoded[0], decoded[2])
    Image.new("RGB", (SIZE, SIZE), (255, 0, 0)).save(tmp_path / "red.png")
    assert (_decode(tmp_path / "red.png", channels=1) == 76).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (SIZE, SIZE), (10, 20, 30, 0)).convert(mode)
    image.save(tmp_path / "clear.png")
    assert (_decode(tmp_path / "clear.png") == 255).all()


def test_opaque_rgba_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("RGBA", (SIZE, SIZE), (10, 20, 30, 255)).save(tmp_path / "solid.png")
    assert _decode(tmp_path / "solid.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_cmyk_jpeg_shows_the_same_colour_as_rgb(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), (200, 60, 20))
    image.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    with Image.open(tmp_path / "print.jpg") as stored:
        assert stored.mode == "CMYK"
    colour = _decode(tmp_path / "print.jpg").float().mean(dim=(1, 2))
    assert (colour - torch.tensor([200.0, 60.0, 20.0])).abs().max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((32, 32), dtype=np.uint8)
    upright[:16, :16] = 240
    upright[:16, 16:] = 120
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image = Image.fromarray(upright)
    stored = image if inverse == 1 else image.transpose(transposes[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    decoded = _decode(tmp_path / "turned.jpg", channels=1)[0].float()
    corners = torch.stack([decoded[1, 1], decoded[1, -2], decoded[-2, 1], decoded[-2, -2]])
    assert (corners - torch.tensor([240.0, 120.0, 0.0, 0.0])).abs().max() < 12


def _broken_files(folder: Path) -> list[Path]:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "full.jpg")
    content = (folder / "full.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    Image.fromarray(_gradient(64, 64)).save(folder / "full.png")
    content = (folder / "full.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) - 60])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("this is no image")
    Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(folder / "float.tif")
    os.mkfifo(folder / "pipe.png")
    names = ("pipe.png", "truncated.jpg", "truncated.png", "empty.jpg", "text.png", "float.tif", "missing.jpg")
    return [folder / name for name in names]


def test_broken_files_name_path_and_remedy_in_one_line(tmp_path: Path) -> None:
    for path in _broken_files(tmp_path):
        with pytest.raises(ValueError, match="--on-bad-image skip") as caught:
            _decode(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_decompression_bomb_is_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(_gradient(64, 64)).save(tmp_path / "big.png")
    monkeypatch.setattr(files, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"64 x 64 pixels are more than 1000"):
        _decode(tmp_path / "big.png")


def test_find_bad_images_lists_all_and_only_the_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = _broken_files(tmp_path)
    paths = [tmp_path / "full.png", *broken, tmp_path / "full.jpg"]
    with caplog.at_level(logging.INFO, "ttc"):
        bad = find_bad_images(FileImages([str(path) for path in paths], Decoding(SIZE, 3)))
    assert [row for row, _ in bad] == list(range(1, len(broken) + 1))
    assert all(reason and "\n" not in reason for _, reason in bad)


def test_a_decompression_bomb_is_no_warning_on_the_terminal(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    for side in (10_000, 30_000):  # Pillow warns of the first and refuses the second
        header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
        path = tmp_path / f"{side}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with pytest.raises(ValueError, match="cannot read image"):
                _decode(path)
        assert not told


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (40, 40), (130, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_jpeg_decoders_agree(tmp_path: Path, width: int, height: int, channels: int) -> None:
    """Smooth pictures, so that the half pixel by which their centre squares may differ does not show."""
    shapes = np.random.default_rng(width).integers(60, 200, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "a.png")
    assert min(width, height) < decoding.SCALED_DECODING * 24
    with_torchvision, with_pillow = (_decode(tmp_path / name, channels, 24).int() for name in ("a.jpg", "a.png"))
    assert (with_torchvision - with_pillow).abs().max() <= 8


def test_a_large_jpeg_is_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    shapes = np.random.default_rng(0).integers(60, 200, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(shapes).resize((400, 400), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    small = _decode(tmp_path / "a.jpg", 3, 16).int()
    with Image.open(tmp_path / "a.jpg") as image:
        expected = image.resize((16, 16), Image.Resampling.BILINEAR)
    assert (small - torch.from_numpy(np.array(expected)).permute(2, 0, 1).int()).abs().max() <= 4


def test_threads_keep_the_order_and_hold_few_results() -> None:
    started: list[str] = []

    def work(path: str) -> str:
        started.append(path)
        return path * 2

    paths = [str(number) for number in range(1000)]
    found = in_threads(work, paths, "doubled")
    assert [next(found) for _ in range(3)] == ["00", "11", "22"]
    assert len(started) < 200
    assert list(found) == [path * 2 for path in paths[3:]]


def test_channels_are_one_only_when_all_files_are_gray(tmp_path: Path) -> None:
    Image.fromarray(_gradient(4, 4)).save(tmp_path / "gray.png")
    Image.fromarray(_gradient(4, 4).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    gray = [str(tmp_path / "gray.png"), str(tmp_path / "deep.png")]
    assert count_channels(gray) == 1
    assert count_channels([*gray, str(tmp_path / "missing.png")]) == 1
    assert count_channels([*gray, str(tmp_path / "colour.png")]) == 3


def test_stored_size_leaves_room_for_crops() -> None:
    assert stored_size(224) == 258


def test_tensor_images_keep_native_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    images = tensor_images(pixels, None)
    assert torch.equal(images[torch.tensor([3, 1])], torch.from_numpy(pixels[[3, 1]]).permute(0, 3, 1, 2))
    assert len(images) == 5


@pytest.mark.parametrize("size", [4, 20, 40])
def test_resizing_matches_torchvision(size: int) -> None:
    from torchvision.transforms.v2 import functional

    pixels = np.random.default_rng(size).integers(0, 256, (1100, 28, 28), dtype=np.uint8)
    resized = tensor_images(pixels, size).data
    expected = functional.resize(torch.from_numpy(pixels).unsqueeze(1), [size, size], antialias=True)
    assert resized.shape == (1100, 1, size, size)
    assert (resized.int() - expected.int()).abs().max() <= 1
