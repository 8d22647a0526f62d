"""Images per second from file to square: Pillow, torchvision, this project's choice between them, and the cache.

    python benchmarks/decoding.py --output decoding.csv

Photographs are drawn (smooth shapes under noise, so that a JPEG has a usual size) and read back from the page cache.
The decoders take turns, so that a busy machine slows them alike; the figures are medians over the repeats, and of
processor time, since a page cache does not wait.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import pictures, timing
from ttc.datasets.cache import open_cache
from ttc.datasets.images import FileImages
from ttc.datasets.pixels.decoding import decode_file
from ttc.datasets.pixels.framing import frame_tensor
from ttc.datasets.pixels.preprocessing import Decoding, stored_size
from ttc.flags.parser import Parser, whole
from ttc.run import runtime


def with_pillow(path: str, size: int, *, scaled: bool) -> Tensor:
    """Decode with Pillow, leaving detail out in the JPEG decoder or not."""
    with Image.open(path) as image:
        if scaled:
            image.draft(None, (2 * size, 2 * size))
        rgb = image.convert("RGB")
        side = min(rgb.size)
        left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
        square = rgb.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def with_torchvision(path: str, size: int) -> Tensor:
    """Decode all of a JPEG with torchvision, then resize with torch."""
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels = decode_jpeg(torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8), ImageReadMode.RGB)
    return frame_tensor(pixels, size, "crop")


def measure(paths: list[str], size: int, repeats: int, folder: Path) -> dict[str, float]:
    """Return images per second by way, medians over interleaved repeats."""
    cached, bad = open_cache(FileImages(paths, Decoding(size, 3)), paths, "disk", str(folder))
    assert not bad
    everything = torch.arange(len(paths))
    ways: dict[str, Callable[[], object]] = {
        "pillow": lambda: [with_pillow(path, size, scaled=False) for path in paths],
        "pillow, scaled": lambda: [with_pillow(path, size, scaled=True) for path in paths],
        "torchvision": lambda: [with_torchvision(path, size) for path in paths],
        "this project": lambda: [decode_file(path, Decoding(size, 3)) for path in paths],
        "cache, first use": lambda: (cached.verified.zero_(), cached[everything]),
        "cache": lambda: cached[everything],
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, read in ways.items():
            times[way].append(timing.seconds(read, torch.device("cpu")))
    return {way: len(paths) / statistics.median(seconds) for way, seconds in times.items()}


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Measure how fast image files are read.", "python benchmarks/decoding.py --output d.csv")
    add = parser.add_argument
    add("--image-pixels", nargs="+", type=whole(32), default=[500, 1000, 2000], metavar="PX", help="file widths")
    add("--image-size", type=whole(8), default=224, metavar="PX", help="input of the network")
    add("--images", type=whole(1), default=40, metavar="N", help="files per width; raise it for steadier figures")
    add("--repeats", type=whole(1), default=5, metavar="N", help="turns; raise it on a busy machine")
    add("--output", type=Path, metavar="FILE.csv", help="table to write")
    return parser


def main() -> int:
    """Draw, measure, tell."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(threads=1)
    size = stored_size(args.image_size)
    rows: list[dict[str, str]] = []
    for pixels in args.image_pixels:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = [str(folder / f"{number:04d}.jpg") for number in range(args.images)]
            for number, path in enumerate(paths):
                pictures.draw(pixels, number).save(path, quality=pictures.QUALITY)
            length = statistics.mean(Path(path).stat().st_size for path in paths)
            for way, rate in measure(paths, size, args.repeats, folder / "cache").items():
                row = {"image_width": str(pixels), "stored_size": str(size), "kib": f"{length / 1024:.0f}", "way": way}
                rows.append(row | {"images_per_second": f"{rate:.0f}"})
                timing.tell(rows[-1])
    if args.output:
        timing.write_rows(args.output, rows, torch.device("cpu"))
    return 0


if __name__ == "__main__":
    runtime.run(main)
