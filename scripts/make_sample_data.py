"""Write tiny data sets of drawn images in the official layouts, to try every `--dataset` without a download.

    python scripts/make_sample_data.py samples
    python pretrain.py --dataset inat21-plants --data-root samples/inat21 --image-size 32 --batch-size 16

The two classes are stripes of two directions under noise: easy to learn, and of no scientific use. A line of JSON per
data set on standard output names the flags that read it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.datasets.registry import MEDMNIST_NAMES
from ttc.flags.parser import Parser, whole
from ttc.run import runtime
from ttc.run.log import log, start_logging

Pixels = NDArray[np.uint8]

INAT21 = {
    "Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Quercus": ("alba", "robur"),
    "Plantae_Tracheophyta_Magnoliopsida_Saxifragales": ("Crassulaceae_Sedum_acre", "Saxifragaceae_Heuchera_americana"),
    "Animalia_Arthropoda_Insecta_Hymenoptera_Apidae": ("Apis_mellifera", "Bombus_terrestris"),
    "Animalia_Arthropoda_Insecta_Hymenoptera_Vespidae": ("Polistes_dominula", "Vespula_germanica"),
    "Animalia_Chordata_Mammalia_Artiodactyla": ("Bovidae_Bison_bison", "Cervidae_Alces_alces"),
    "Animalia_Chordata_Mammalia_Carnivora": ("Canidae_Vulpes_vulpes", "Felidae_Lynx_rufus"),
    # Species of neither class, which a reader has to pass over.
    "Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Fagus": ("sylvatica",),
    "Animalia_Chordata_Aves_Passeriformes": ("Corvidae_Corvus_corax",),
}
"""Taxonomic prefix -> rests of the folder names; prefixes alternate between the drawn classes."""
FRACATLAS_COLUMNS = ("image_id", "hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", "fractured")
RARE_SHARE = 0.2


@dataclass(frozen=True)
class Artist:
    """Draws images of a class; each image is a function of the seed and its number.

    Attributes:
        pixels: side of the images.
        seed: of everything.
    """

    pixels: int
    seed: int

    def draw(self, label: int, number: int, *, channels: int = 3, pixels: int | None = None) -> Pixels:
        """Return uint8 [H, W] for one channel, else [H, W, 3]: stripes whose direction is the label's, under noise."""
        random = np.random.default_rng([self.seed, label, number])
        side = pixels or self.pixels
        place = np.arange(side) / side
        stripes = np.sin(2 * np.pi * (random.uniform(2, 4) * place + random.uniform()))
        gray = stripes[:, None] if label % 2 else stripes[None, :]
        # A third and further class differ in brightness.
        image = 110 + 12 * (label // 2) + 60 * np.broadcast_to(gray, (side, side))
        image = image[..., None] * random.uniform(0.8, 1.0, channels) + random.normal(0, 20, (side, side, channels))
        return np.asarray(image.clip(0, 255).round().astype(np.uint8).squeeze(-1 if channels == 1 else ()))

    def save(self, path: Path, label: int, number: int, *, channels: int = 3) -> None:
        """Draw an image into a file; every third one is wider than high."""
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.draw(label, number, channels=channels))
        if number % 3 == 0:
            image = image.resize((self.pixels * 4 // 3, self.pixels))
        image.save(path, quality=90)


def write_inat21(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write train, train_mini and val with folders of species; the numbers leave gaps, as a partial download does."""
    number = 0
    for position, (prefix, species) in enumerate(INAT21.items()):
        for rest in species:
            number += 1
            folder = f"{37 * number:05d}_{prefix}_{rest}"
            for part, share in (("train", 1.0), ("train_mini", 0.5), ("val", 0.4)):
                for image in range(max(4, round(per_class * share / len(species)))):
                    # Other pixels in every part: equal files in two splits are refused.
                    key = hashlib.sha256(f"{part}{folder}{image}".encode()).hexdigest()
                    artist.save(root / part / folder / f"{key[:8]}-{image:04d}.jpg", position, int(key[:12], 16))
    for name in ("plants", "insects", "mammals"):
        yield {"--dataset": f"inat21-{name}", "--data-root": str(root), "--class-ratios": [0.2, 0.8]}


def write_fracatlas(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write the unpacked archive: images in two folders and dataset.csv."""
    rows = []
    for number in range(per_class + rare(per_class)):
        fractured = int(number >= per_class)
        name = f"IMG{number:07d}.jpg"
        artist.save(root / "FracAtlas" / "images" / ("Non_fractured", "Fractured")[fractured] / name, fractured, number)
        rows.append([name, 1, 0, 0, 0, 0, 0, 0, fractured])
    write_table(root / "FracAtlas" / "dataset.csv", FRACATLAS_COLUMNS, rows)
    yield {"--dataset": "fracatlas", "--data-root": str(root / "FracAtlas")}


def write_ukbb(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write a dictionary of float tensors by participant and the table of labels; the ids are made up."""
    images, rows = {}, []
    for number in range(per_class + rare(per_class)):
        label, participant = int(number >= per_class), f"{9_000_001 + 17 * number}"
        pixels = artist.draw(label, number, pixels=128)
        images[participant] = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        rows.append([participant, label])
    root.mkdir(parents=True, exist_ok=True)
    torch.save(images, root / "cardiac.pt")
    write_table(root / "labels.csv", ("id", "label"), rows)
    yield {"--dataset": "ukbb-cardiac", "--data-root": str(root)}


def write_medmnist(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write all 2-D sets at 28 px and the two of the paper at 224 px, each with a sum that marks it as a sample."""
    from medmnist.info import INFO

    root.mkdir(parents=True, exist_ok=True)
    for name in MEDMNIST_NAMES:
        info = INFO[name]
        labels, several = len(info["label"]), "multi-label" in info["task"]
        for size in (28, 224) if name in ("breastmnist", "pneumoniamnist") else (28,):
            arrays: dict[str, NDArray[np.uint8]] = {}
            for part, share in (("train", 1.0), ("val", 0.3), ("test", 0.4)):
                count = labels * max(3, round(per_class * share * 2 / labels))
                # The paper's two sets have a rare class 0.
                target = np.arange(count) % labels if labels > 2 else np.minimum(np.arange(count) % 4, 1)
                offset = {"train": 0, "val": 10**6, "test": 2 * 10**6}[part]
                drawn = [
                    artist.draw(label, offset + row, channels=info["n_channels"], pixels=size)
                    for row, label in enumerate(target)
                ]
                arrays[f"{part}_images"] = np.stack(drawn)
                arrays[f"{part}_labels"] = (np.eye(labels)[target] if several else target[:, None]).astype(np.uint8)
            path = root / f"{name}{'' if size == 28 else f'_{size}'}.npz"
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # names of arrays, not flags
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            path.with_name(path.name + ".md5").write_text(f"{digest}  {path.name}\n")
        flags: dict[str, object] = {"--dataset": name, "--data-root": str(root)}
        yield flags if labels == 2 else {**flags, "--positive-classes": "1"}


def write_fashion(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write the four gzipped idx files."""
    root.mkdir(parents=True, exist_ok=True)
    for part, share in (("train", 1.0), ("t10k", 0.4)):
        labels = np.arange(10 * max(3, round(per_class * share / 5)), dtype=np.uint8) % 10
        offset = {"train": 0, "t10k": 10**6}[part]
        # The reader's default groups: 0, 1, 2, 5 and 9 against the others.
        classes = [int(label not in (0, 1, 2, 5, 9)) for label in labels]
        images = np.stack([artist.draw(c, offset + n, channels=1, pixels=28) for n, c in enumerate(classes)])
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
            (root / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
    yield {"--dataset": "fashion", "--data-root": str(root), "--class-ratios": [0.8, 0.2]}


def write_imagefolder(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write a folder per class."""
    for number in range(per_class + rare(per_class)):
        rare_one = int(number >= per_class)
        artist.save(root / ("common", "rare")[rare_one] / f"{number:04d}.png", rare_one, number)
    yield {"--dataset": "imagefolder", "--data-root": str(root)}


def write_csv(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write images in one folder and a table with two images per patient."""
    rows: list[list[object]] = []
    for number in range(per_class + rare(per_class)):
        label = int(number >= per_class)
        artist.save(root / "images" / f"{number:04d}.png", label, number, channels=1)
        rows.append([f"images/{number:04d}.png", ("healthy", "ill")[label], f"patient{number // 2:03d}"])
    write_table(root / "table.csv", ("path", "label", "group"), rows)
    yield {"--dataset": "csv", "--data-root": str(root / "table.csv")}


def write_arrays(root: Path, artist: Artist, per_class: int) -> Iterator[dict[str, object]]:
    """Write one file of images, labels and patients of two images each."""
    root.mkdir(parents=True)
    numbers = range(per_class + rare(per_class))
    labels = [int(number >= per_class) for number in numbers]
    np.savez_compressed(
        root / "images.npz",
        images=np.stack([artist.draw(label, number) for label, number in zip(labels, numbers, strict=True)]),
        label=np.array(["healthy", "ill"])[labels],
        group=np.array([f"patient{number // 2:03d}" for number in numbers]),
    )
    yield {"--dataset": "arrays", "--data-root": str(root / "images.npz")}


WRITERS: dict[str, Callable[[Path, Artist, int], Iterator[dict[str, object]]]] = {
    "inat21": write_inat21,
    "fracatlas": write_fracatlas,
    "ukbb": write_ukbb,
    "medmnist": write_medmnist,
    "fashion": write_fashion,
    "imagefolder": write_imagefolder,
    "csv": write_csv,
    "arrays": write_arrays,
}


def rare(per_class: int) -> int:
    """Return the size of the rare class."""
    return max(12, round(RARE_SHARE * per_class))


def write_table(path: Path, columns: tuple[str, ...], rows: list[list[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Write tiny data sets of drawn images in the official layouts.", "python scripts/make_sample_data.py samples"
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="where the trees go; one folder per layout is made in it")
    add("--layouts", nargs="+", choices=tuple(WRITERS), default=list(WRITERS), help="which to write")
    add(
        "--per-class",
        type=whole(12),
        default=60,
        metavar="N",
        help="training images of a common class; raise it to try a recipe with its own batch size",
    )
    add("--pixels", type=whole(16), default=48, metavar="PX", help="side of the images in files")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="S", help="of the drawings")
    return parser


def main() -> int:
    """Write the trees and name the flags that read them."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    artist = Artist(args.pixels, args.seed)
    for layout in dict.fromkeys(args.layouts):
        root = Path(args.folder) / layout
        if root.exists():
            raise ValueError(f"{root} exists already; remove it or name another FOLDER")
        for flags in WRITERS[layout](root, artist, args.per_class):
            sys.stdout.write(json.dumps(flags) + "\n")
        log.info("%s is written", root)
    return 0


if __name__ == "__main__":
    runtime.run(main)
