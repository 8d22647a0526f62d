from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.listing import list_images, refuse_all_missing, refuse_strange_names, subfolders

Write = Callable[[Path], Path]


@pytest.fixture
def tree(tmp_path: Path, write_png: Write) -> Path:
    """Two class folders of 20 images with what else lies in people's folders."""
    root = tmp_path / "data"
    for label in ("cat", "dog"):
        for number in range(20):
            write_png(root / label / f"{number:02d}.PNG")
        for name in (".DS_Store", "._00.png", "Thumbs.db", "desktop.ini"):
            (root / label / name).write_bytes(b"x")
    for folder in ("__MACOSX/cat", ".git", "__pycache__", "cat/.cache"):
        (root / folder).mkdir(parents=True)
        (root / folder / "._1.png").write_bytes(b"x")
    for name in ("a.heic", "b.HEIC", "notes.txt", "raw"):
        (root / "dog" / name).write_bytes(b"x")
    return root


def test_system_files_are_skipped_and_other_formats_counted(tree: Path) -> None:
    assert [path.name for path in subfolders(tree)] == ["cat", "dog"]
    for deep in (False, True):
        listing = list_images(tree / "dog", deep=deep)
        assert [path.name for path in listing.images] == [f"{number:02d}.PNG" for number in range(20)]
        assert listing.left_out == {".heic": 2, ".txt": 1, "without extension": 1}
    assert listing.describe() == f"2 .heic, 1 .txt, 1 without extension (such as {tree / 'dog' / 'a.heic'})"
    assert len(list_images(tree, deep=True).images) == 40
    (tree / "cat" / "again").symlink_to(tree)
    assert len(list_images(tree, deep=True).images) == 40, "a link back is not followed for ever, nothing counts twice"


def test_links_to_nowhere_are_images_that_cannot_be_read(tree: Path) -> None:
    for number in range(3):
        (tree / "dog" / f"link{number}.png").symlink_to(tree / "gone.png")
    settings = DatasetSettings("imagefolder", str(tree), image_size=8)
    with pytest.raises(ValueError, match=r"cannot read image .*dog/link0.png: a link that leads nowhere"):
        load_dataset(settings)
    skipping = load_dataset(DatasetSettings("imagefolder", str(tree), image_size=8, on_bad_image="skip"))
    assert [Path(path).name for path, _ in skipping.bad_images] == ["link0.png", "link1.png", "link2.png"]
    (tree / "cow").symlink_to(tree / "gone")
    with pytest.raises(ValueError, match="cow is a link that leads nowhere"):
        load_dataset(settings)


def _list_as_nobody(folder: str) -> None:
    os.setuid(65534)
    with pytest.raises(ValueError, match=r"cannot be listed \(Permission denied\); make it readable"):
        list_images(Path(folder), deep=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights needs root")
def test_a_folder_that_cannot_be_listed_is_named(tree: Path) -> None:
    for folder in (*tree.parents, tree):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    (tree / "dog").chmod(0o700)
    process = multiprocessing.get_context("fork").Process(target=_list_as_nobody, args=(str(tree),))
    process.start()
    process.join(20)
    assert process.exitcode == 0


def test_names_that_are_not_utf8(tree: Path, write_png: Write) -> None:
    os.rename(tree / "cat" / "00.PNG", os.fsencode(tree / "cat") + b"/\xff.png")  # noqa: PTH104  # bytes
    with pytest.raises(ValueError, match=r"the name .*cat/\\xff.png is not UTF-8.*rename it") as caught:
        load_dataset(DatasetSettings("imagefolder", str(tree), image_size=8))
    str(caught.value).encode()
    refuse_strange_names(["größe.png", "图.png"], "--data-root")


def test_all_files_missing(tmp_path: Path, write_png: Write) -> None:
    with pytest.raises(ValueError, match=r"t.csv: none of its 2 files exists, the first is a.png; paths start at"):
        refuse_all_missing(["a.png", "b.png"], "--data-root t.csv")
    with pytest.raises(ValueError, match=r"write paths with / instead of"):
        refuse_all_missing(["im\\a.png"], "--data-root t.csv")
    refuse_all_missing(["gone.png", str(write_png(tmp_path / "a.png")) + "#2"], "--data-root t.csv")
