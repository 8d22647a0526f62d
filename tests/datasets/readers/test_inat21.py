from __future__ import annotations

import importlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import ROOT
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.datasets.readers import inat21
from ttc.datasets.table import Source
from ttc.flags.parser import Parser

OAK = "Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Quercus"
SAXIFRAGE = "Plantae_Tracheophyta_Magnoliopsida_Saxifragales"
Samples = Callable[[str], Path]


def touch(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03d}.jpg").touch()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two species of each class; empty files, since reading looks at names only."""
    root = tmp_path / "inat"
    for part, oaks, others in (("train", 100, 200), ("val", 5, 10)):
        touch(root / part / f"00007_{OAK}_alba", oaks)
        touch(root / part / f"00107_{SAXIFRAGE}_Crassulaceae_Sedum_acre", others)
        touch(root / part / f"09999_{SAXIFRAGE}_Saxifragaceae_Heuchera_americana", others)
    return root


def read(root: Path, name: str = "inat21-plants", **settings: object) -> Source:
    return inat21.read(DatasetSettings(name, str(root), **settings))  # type: ignore[arg-type]


def by_split(source: Source) -> Counter[tuple[str, str]]:
    return Counter(zip(source.splits, source.labels, strict=True))


def test_train_is_split_and_val_and_test_are_balanced(tree: Path) -> None:
    source = read(tree)
    assert by_split(source) == {
        ("train", OAK): 95,
        ("train", SAXIFRAGE): 395,
        ("val", OAK): 5,
        ("val", SAXIFRAGE): 5,
        ("test", OAK): 5,
        ("test", SAXIFRAGE): 5,
    }
    assert source.classes.names == ["Quercus", "Saxifragales"]
    assert all(i.startswith("val/") == (split == "test") for i, split in zip(source.ids, source.splits, strict=True))


def test_the_seed_draws_validation_but_not_the_test_set(tree: Path) -> None:
    first, again, other = read(tree, seed=1), read(tree, seed=1), read(tree, seed=2)
    assert (first.ids, first.splits) == (again.ids, again.splits)
    drawn = [{i for i, s in zip(each.ids, each.splits, strict=True) if s == "test"} for each in (first, other)]
    assert drawn[0] == drawn[1]
    assert first.splits != other.splits


@pytest.mark.parametrize("name", ["inat21-plants", "inat21-insects", "inat21-mammals"])
def test_sample_trees_load_with_a_constant_total(samples: Samples, name: str) -> None:
    def load(rare: float) -> Dataset:
        return load_dataset(
            DatasetSettings(name, str(samples("inat21")), image_size=16, class_ratios=(rare, 1 - rare), seed=3)
        )

    half, fifth = load(0.5), load(0.2)
    assert (half.class_counts("train"), fifth.class_counts("train")) == ([19, 19], [7, 30])  # floors of shares of 38
    assert (half.class_counts("val"), half.class_counts("test")) == ([2, 2], [16, 16])
    assert half.ids == fifth.ids
    assert (half.indices("test") == fifth.indices("test")).all()
    assert (half.channels, fifth.minority_class) == (3, 0)


@pytest.mark.parametrize("name", ["plants", "insects", "mammals"])
@pytest.mark.parametrize(("share", "ratios"), [(95, [0.05, 0.95]), (99, [0.01, 0.99])])
def test_recipes_make_the_first_class_rare_as_the_published_configurations_do(
    name: str, share: int, ratios: list[float]
) -> None:
    parser: Parser = importlib.import_module("pretrain").build_parser()
    given = parser.parse([f"@{ROOT / 'scripts' / 'recipes' / f'{name}-{share}.args'}"])
    assert (given.values["dataset"], given.values["class_ratios"]) == (f"inat21-{name}", ratios)


def test_train_mini_and_partial_downloads(tree: Path, samples: Samples) -> None:
    both = samples("inat21")
    assert {i.split("/")[0] for i in read(both).ids} == {"train", "val"}
    assert {i.split("/")[0] for i in read(both / "train_mini").ids} == {"train_mini", "val"}
    (tree / "train").rename(tree / "train_mini")
    shutil.rmtree(tree / "train_mini" / f"09999_{SAXIFRAGE}_Saxifragaceae_Heuchera_americana")
    assert by_split(read(tree))["train", SAXIFRAGE] == 195


def test_prefixes_end_at_an_underscore_and_ignore_case(tree: Path) -> None:
    touch(tree / "train" / f"00011_{OAK}ella_minor", 3)
    touch(tree / "train" / f"notes_{OAK}", 3)
    touch(tree / "train" / f"00012_{OAK.upper()}_RUBRA", 4)
    assert by_split(read(tree))["train", OAK] == 99


def test_other_prefixes(samples: Samples) -> None:
    classes = (("Animalia_Chordata_Aves", "Animalia_Chordata_Mammalia"), ("Animalia_Arthropoda",))
    assert read(samples("inat21"), classes=classes).classes.names == ["Aves/Mammalia", "Arthropoda"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "train"), "has neither train nor train_mini; pass the folder"),
        (lambda root: shutil.rmtree(root / "val"), "has no folder val, the official test set; unpack val.tar.gz"),
        (
            lambda root: shutil.rmtree(root / "train" / f"00007_{OAK}_alba"),
            f"train has no species of {OAK}",
        ),
        (lambda root: shutil.rmtree(root / "val" / f"00007_{OAK}_alba"), f"val has no species of {OAK}"),
        (
            lambda root: (root / "train" / f"00007_{OAK}_alba").rename(root / "train" / f"00007_{OAK[:-2]}os_alba"),
            f"the nearest are {OAK[:-2]}os, .*; unpack more, or name others",
        ),
        (
            lambda root: [file.unlink() for file in (root / "val" / f"00007_{OAK}_alba").iterdir()],
            f"val has no image of {OAK}; unpack val again",
        ),
    ],
    ids=["train", "val", "species", "species of val", "near", "empty"],
)
def test_what_is_missing_is_named(tree: Path, change: Callable[[Path], object], message: str) -> None:
    change(tree)
    with pytest.raises(ValueError, match=message) as caught:
        read(tree)
    assert "\n" not in str(caught.value)


def test_contradictions(tree: Path) -> None:
    with pytest.raises(ValueError, match="belongs to"):
        read(tree, classes=((OAK, SAXIFRAGE), ("Plantae",)))
    with pytest.raises(ValueError, match="name taxonomic prefixes with --classes"):
        read(tree, positive_classes=("Quercus",))
    with pytest.raises(ValueError, match="needs --data-root"):
        inat21.read(DatasetSettings("inat21-plants"))


def test_the_list_is_kept_until_a_folder_changes(tree: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    list_folder = inat21._images

    def counted(folder: Path) -> object:
        listed.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(inat21, "_images", counted)
    first = read(tree)
    assert len(listed) == 6
    assert read(tree).ids == first.ids
    assert len(listed) == 6
    folder = tree / "train" / f"00007_{OAK}_alba"
    (folder / "new.jpg").touch()
    os.utime(folder, ns=(1, 1))  # a clock of coarse steps might not tell the change from the first listing
    assert len(read(tree).ids) == len(first.ids) + 1
    assert len(listed) == 12
    (index,) = caches.iterdir()
    index.write_text("{half a li")
    assert len(read(tree).ids) == len(first.ids) + 1


def test_a_folder_that_cannot_be_written_costs_only_time(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "file").touch()
    assert read(tree, cache_folder=str(tree / "file" / "cache")).ids == read(tree).ids
    assert "cannot be kept" in caplog.text


@pytest.mark.slow
def test_a_tree_of_the_full_number_of_folders(tmp_path: Path) -> None:
    """10,000 folders with 200,000 files in all, of which 400 folders are of the two classes."""
    root = tmp_path / "inat"
    for part, files in (("train", 18), ("val", 2)):
        for number in range(10_000):
            taxon = (OAK, SAXIFRAGE)[number % 2] if number < 400 else "Animalia_Chordata_Aves_Passeriformes"
            touch(root / part / f"{number:05d}_{taxon}_species{number}", files)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        assert len(read(root).ids) == 400 * 20
        seconds.append(time.perf_counter() - start)
    print(f"first {seconds[0]:.2f} s, then {seconds[1]:.2f} s")
    assert seconds[0] < 10
