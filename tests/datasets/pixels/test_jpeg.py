"""JPEG files that libjpeg would repair count as unreadable, on every path; sound ones are decoded at any scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ttc.datasets.pixels.decoding import SCALED_DECODING, decode_bytes
from ttc.datasets.pixels.framing import frame
from ttc.datasets.pixels.jpeg import decode_jpeg
from ttc.datasets.pixels.preprocessing import Decoding

END = b"\xff\xd9"
SIDE = 96


def picture(mode: str = "RGB") -> Image.Image:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert(mode)


def content(mode: str = "RGB", **settings: object) -> bytes:
    file = io.BytesIO()
    picture(mode).save(file, "JPEG", quality=90, **settings)  # type: ignore[arg-type]  # settings of the format
    return file.getvalue()


def lost(whole: bytes, kind: str) -> bytes:
    """Return a JPEG of which a part is lost, with an end mark unless it is cut off."""
    middle = whole.rindex(b"\xff\xda") + (len(whole) - whole.rindex(b"\xff\xda")) // 2
    return {
        "end": whole[:middle] + END,
        "cut off": whole[:middle],
        "block": whole[:middle] + whole[middle + len(whole) // 8 :],
        "zeros": whole[:middle] + bytes(200) + whole[middle + 200 :],
    }[kind]


@pytest.mark.parametrize("size", [8, 48])
@pytest.mark.parametrize("kind", ["end", "cut off", "block"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_lost_parts_make_an_image_unreadable_at_any_scale(mode: str, kind: str, size: int) -> None:
    for settings in ({}, {"progressive": True}, {"restart_marker_blocks": 4}):
        whole = content(mode, **settings)
        decode_bytes(whole, Decoding(size, 3))
        with pytest.raises((ValueError, OSError)):  # the decoder's words, of many kinds
            decode_bytes(lost(whole, kind), Decoding(size, 3))


def test_both_sizes_take_both_paths() -> None:
    assert SIDE >= SCALED_DECODING * 8
    assert SIDE < SCALED_DECODING * 48


def test_pictures_of_several_frames_are_checked_too() -> None:
    file = io.BytesIO()
    picture().save(file, "MPO", save_all=True, append_images=[picture().rotate(90)])
    whole = file.getvalue()
    with Image.open(io.BytesIO(whole)) as image:
        assert image.format == "MPO"
    decode_bytes(whole, Decoding(8, 3))
    with pytest.raises(ValueError, match="Corrupt JPEG data"):
        decode_bytes(whole[: len(content()) // 2] + END, Decoding(8, 3))


def test_bytes_behind_the_last_block_are_no_damage() -> None:
    whole = content()
    assert whole.endswith(END)
    padded = whole[: -len(END)] + bytes(3) + END
    for size in (8, 48):
        assert torch.equal(decode_bytes(padded, Decoding(size, 3)), decode_bytes(whole, Decoding(size, 3)))


@pytest.mark.parametrize("gray", [False, True])
def test_chroma_of_an_unusual_sampling_is_decoded(gray: bool) -> None:
    """Cb and Cr sampled differently, which simplejpeg does not know; the file is that of a gray picture."""
    whole = bytearray(content(subsampling=0))
    place = whole.index(b"\xff\xc0") + 11
    whole[place], whole[place + 3], whole[place + 6] = 0x12, 0x12, 0x11
    for scale in (1, 2):
        pixels = decode_jpeg(bytes(whole), gray=gray, scale=scale)
        assert pixels.shape == (SIDE // scale, SIDE // scale, 1 if gray else 3)


@pytest.mark.parametrize("kind", ["end", "block"])
def test_checkpoints_of_earlier_versions_take_repaired_files(kind: str) -> None:
    damaged = lost(content(), kind)
    for size in (8, 48):
        assert decode_bytes(damaged, Decoding(size, 3, edition=1)).shape == (3, size, size)
    with pytest.raises(ValueError, match="Premature end"):
        decode_bytes(lost(content(), "cut off"), Decoding(48, 3, edition=1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_and_small_files_are_turned_alike(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = content("L", exif=exif.tobytes())
    with Image.open(io.BytesIO(whole)) as image:
        from PIL import ImageOps

        expected = torch.from_numpy(np.array(frame(ImageOps.exif_transpose(image), 12, "crop")))
    for size in (12, 36):
        found = decode_bytes(whole, Decoding(size, 1))[0].float()
        small = torch.nn.functional.interpolate(found[None, None], (12, 12), mode="area")[0, 0]
        assert (small - expected).abs().mean() < 6
