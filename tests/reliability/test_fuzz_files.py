"""Files nobody would make: images, tables, archives and idx files are read, or refused in one line, and never hang."""

from __future__ import annotations

import gzip
import io
import os
import signal
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from compute_metrics import load_embeddings
from tests.reliability.data import image_folder
from tests.reliability.fuzzing import SIZES, try_inputs, verdict
from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.images import FileImages
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.datasets.readers.fashion import read_idx
from ttc.run.npz import read_arrays

SECONDS = 120
"""A file that takes longer is taken for one that hangs."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    def give_up(number: int, frame: object) -> None:
        raise AssertionError(f"no end within {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def png(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG with that header, whatever the compressed pixels are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [header, *(chunk(*each) for each in chunks), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)  # type: ignore[arg-type]  # settings of the format
    return file.getvalue()


def sample_images() -> dict[str, bytes]:
    """Return one image of every kind that people have."""
    made = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    grey, colour, clear = (Image.fromarray(made[..., :count].squeeze()) for count in (1, 3, 4))
    deep = Image.fromarray(made[..., 0].astype(np.uint16) * 257)
    frames = [grey.convert("P"), grey.rotate(90).convert("P")]
    tiffs = {name: saved(colour, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")}
    return {
        **tiffs,
        "grey.png": saved(grey, "PNG"),
        "16-bit.png": saved(deep, "PNG"),
        "16-bit.tif": saved(deep, "TIFF"),
        "float.tif": saved(Image.fromarray(made[..., 0].astype(np.float32)), "TIFF"),
        "alpha.png": saved(clear, "PNG"),
        "palette.png": saved(colour.convert("P"), "PNG", transparency=3),
        "one bit.png": saved(grey.convert("1"), "PNG"),
        "colour.jpg": saved(colour, "JPEG"),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        "animated.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "colour.webp": saved(colour, "WEBP"),
        "colour.bmp": saved(colour, "BMP"),
    }


HOSTILE = {
    "empty": b"",
    "zeros": bytes(2000),
    "text": b"not an image",
    "bomb": png(40_000, 40_000, zlib.compress(bytes(10_000_000))),
    "just below the bomb": png(9_000, 9_900, zlib.compress(bytes(1000))),
    "widest": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "no width": png(0, 10, zlib.compress(bytes(10))),
    "one pixel high": png(60_000, 1, zlib.compress(bytes(60_001))),
    "text bomb": png(8, 8, zlib.compress(bytes(72)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000)))),
    "no pixels": png(8, 8, b""),
    "wrong pixels": png(8, 8, b"not zlib"),
}


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Draw a file that was cut, overwritten, doubled or joined with another."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(("flip", "flip early", "cut", "remove", "insert", "number", "join"))):
            case "flip" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "flip early" if content:
                content[place % min(64, len(content))] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[place:]
            case "remove":
                del content[place : place + draw(st.integers(1, 40))]
            case "insert":
                content[place:place] = draw(st.binary(max_size=20))
            case "number":  # sizes and offsets
                content[place : place + 4] = draw(
                    st.sampled_from((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
                )
            case "join":
                content += draw(st.sampled_from(originals))[place:]
    return bytes(content)


def decode(path: Path) -> None:
    for channels in (1, 3):
        pixels = FileImages([str(path)], Decoding(12, channels))[torch.tensor([0])]
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, channels, 12, 12))


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Pillow, about damaged metadata
def test_images(cases: int, tmp_path: Path) -> None:
    path, originals = tmp_path / "image", list(sample_images().values())

    def check(content: object) -> str:
        assert isinstance(content, bytes)
        path.write_bytes(content)
        with time_limit():
            return verdict(lambda: decode(path))

    try_inputs("images", cases, mutated(originals), check)


@pytest.mark.parametrize("name", [*HOSTILE, *sample_images()])
def test_hostile_and_rare_images(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes({**HOSTILE, **sample_images()}[name])
    with time_limit(), warnings.catch_warnings(record=True) as told:
        outcome = verdict(lambda: decode(path))
    assert not told, "a warning would be printed"
    if name in sample_images():
        assert outcome == "accepted"
    elif name not in ("just below the bomb", "one pixel high"):
        assert outcome == "refused"


def test_a_pipe_is_no_image_and_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with time_limit():
        assert verdict(lambda: decode(tmp_path / "pipe")) == "refused"
        table = DatasetSettings(name="csv", data_root=str(tmp_path / "pipe"))
        assert verdict(lambda: load_dataset(table)) == "refused"


@pytest.mark.parametrize("cases", SIZES)
def test_tables(cases: int, tmp_path: Path) -> None:
    root, table = image_folder(tmp_path / "images", 24), tmp_path / "table.csv"
    files = sorted(str(path) for path in root.rglob("*.png"))
    path = st.one_of(
        *[st.sampled_from(files)] * 6, st.sampled_from(("", "none.png", "/", "..", "\0", "/dev/zero", str(table)))
    )
    label = st.one_of(*[st.sampled_from("01")] * 4, st.sampled_from(("", "1.0", "nan", "x", " 1", "ü", "-1")))
    split = st.one_of(*[st.sampled_from(("train", "val", "test"))] * 4, st.sampled_from(("", "Train", "pool")))
    row = st.tuples(path, label, split, st.sampled_from(("", "p1", "p2", "p3"))).map(list)
    head = st.one_of(
        *[st.just(["path", "label", "split", "group"])] * 5,
        st.permutations(["path", "label", "split", "group"]),
        st.lists(st.sampled_from(("path", "label", "id", "", "x", "path ")), max_size=5),
    )
    ends = st.sampled_from(("\n", "\n", "\r\n", "\r", "\n\n", "\0\n", '"\n', ",\n"))
    sheet = st.tuples(head, st.lists(row, max_size=30), ends).map(
        lambda parts: parts[2].join(",".join(cells) for cells in (parts[0], *parts[1])).encode("utf-8", "surrogatepass")
    )

    def check(content: object) -> str:
        assert isinstance(content, bytes)
        table.write_bytes(content)
        settings = DatasetSettings(name="csv", data_root=str(table), num_workers=1)
        with time_limit():
            outcome = verdict(lambda: load_dataset(settings))
        assert table.read_bytes() == content
        return outcome

    whole = ["path,label,split", *(f"{path},{number % 2},{path.split('/')[-3]}" for number, path in enumerate(files))]
    table.write_text("\n".join(whole))
    assert check(table.read_bytes()) == "accepted"
    try_inputs("tables", cases, st.one_of(sheet, mutated(["\n".join(whole).encode()])), check)


def archives() -> list[bytes]:
    """Return npz files, plain and packed."""
    made: list[bytes] = []
    arrays = {
        "embeddings": np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32),
        "labels": np.arange(8) % 2,
    }
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs
        made.append(file.getvalue())
    return made


@pytest.mark.parametrize("cases", SIZES)
def test_embeddings(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "e.npz"

    def check(content: object) -> str:
        assert isinstance(content, bytes)
        path.write_bytes(content)
        with time_limit():
            return verdict(lambda: load_embeddings(str(path)))

    assert [check(each) for each in archives()] == ["accepted", "accepted"]
    try_inputs("npz", cases, mutated(archives()), check)


def test_archives_with_paths_bombs_and_objects(tmp_path: Path) -> None:
    path, plain = tmp_path / "inner" / "e.npz", io.BytesIO()
    path.parent.mkdir()
    np.save(plain, np.zeros(3))

    def refused(**members: bytes) -> str:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name.replace("__", "../"), content)
        with pytest.raises(ValueError, match=r".") as caught:
            read_arrays(path, ["a"])
        return str(caught.value)

    assert "no array 'a'" in refused(**{"__a.npy": plain.getvalue(), "__../b": b"x"})
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "allow_pickle=False" in refused(**{"a.npy": pickled.getvalue()})
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**14,)})
    assert refused(**{"a.npy": huge.getvalue()})
    refused(**{"a.npy": plain.getvalue()[:-8]})
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["e.npz", "inner"]


def test_an_archive_larger_than_the_memory_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        archive.infolist()[0].file_size = 2**50  # what the directory of a bomb says
    with pytest.raises(ValueError, match="unpacks to 1048576 GiB, this machine has"):
        read_arrays(tmp_path / "e.npz", ["a"])


@pytest.mark.parametrize("cases", SIZES)
def test_idx_files(cases: int, tmp_path: Path) -> None:
    content = bytes([0, 0, 8, 3]) + struct.pack(">III", 4, 5, 5) + bytes(range(100))

    def check(changed: object) -> str:
        assert isinstance(changed, bytes)
        path = tmp_path / ("x.gz" if changed[:2] == b"\x1f\x8b" else "x")
        path.write_bytes(changed)
        with time_limit():
            return verdict(lambda: read_idx(path, 3))

    assert check(content) == check(gzip.compress(content)) == "accepted"
    bomb = gzip.compress(bytes(300_000_000))
    assert check(bomb) == "refused"
    try_inputs("idx", cases, mutated([content, gzip.compress(content)]), check)
