"""Features of any encoder, in an .npz file: what heads, metrics and evaluations on other data read.

Arrays: `features` [N, F] or `embeddings` [V, N, F] of V views, `labels` [N] (numbers or text), `split` [N] (train, val,
test), and optionally `groups`, `ids` [N], `class_names` [K], `projection` [N, D] and `about`, a JSON text in
which `scripts/export.py` says which run the features come from. Each name may be singular or plural.

Shape suffixes: V views, N samples, F features, D dimensions of the projection, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.datasets import Dataset, DatasetSettings
from ttc.datasets.checks.leaks import check_unique_ids
from ttc.datasets.classes import sorted_labels
from ttc.datasets.images import TensorImages
from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing
from ttc.datasets.splits import SPLIT_OF, hold_out, missing_parts
from ttc.datasets.table import count_classes, minority_of
from ttc.models.description import FEATURES, Description
from ttc.models.pretrained import Pretrained
from ttc.run import readers
from ttc.run.npz import array_names, read_arrays

ABOUT = ("method", "dataset", "seed", "step", "split_rule", "encoder_sha256", "minority_class")
"""What `about` may say of the run."""


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What an .npz file of features holds.

    Attributes:
        path: the file.
        views: [V, N, F] finite floating-point numbers; V = 1 for an array `features`.
        projection: [N, D], or None.
        labels: [N] int64, 0 .. K - 1; None where the file has none.
        class_names: K names; empty without labels.
        splits: of each sample, or None.
        groups: of each sample, or None.
        ids: of each sample.
        about: the run that the features come from; entries of ABOUT, empty for a foreign file.
        columns: further arrays of one text or number per sample, by name.
    """

    path: Path
    views: Tensor
    projection: Tensor | None
    labels: Tensor | None
    class_names: list[str]
    splits: list[str] | None
    groups: list[str] | None
    ids: list[str]
    about: Mapping[str, object]
    columns: tuple[str, ...] = ()

    @property
    def features(self) -> Tensor:
        """The features [N, F] of the first view."""
        return self.views[0]

    def column(self, name: str) -> list[str]:
        """Return the texts of a further array, for subgroups."""
        if name not in self.columns:
            raise ValueError(
                f"{self.path}: no array {name!r} with one value per sample among {', '.join(self.columns) or 'none'}"
            )
        return _texts(read_arrays(self.path, [name])[0])


def read_features(path: Path, flag: str, *, labelled: bool = True) -> FeatureFile:
    """Read an .npz file of features; nothing in it is unpickled.

    Args:
        path: the file.
        flag: the flag that names it, for messages.
        labelled: whether it must have labels.

    Raises:
        ValueError: it cannot be read, or its arrays do not fit each other.
    """
    arrays, names = _arrays(path, flag, labelled)
    values = arrays["features"] if "features" in arrays else arrays["embeddings"]
    if values.dtype.kind != "f":
        raise ValueError(f"{flag} {path}: features are {values.dtype}; give floating-point numbers")
    if values.ndim == 3 and len(values) == 1:
        raise ValueError(f"{flag} {path}: embeddings {values.shape} are one view; give an array features [N, F]")
    views = values[None] if values.ndim == 2 else values
    labels = arrays.get("label")
    shapes = f"shapes {values.shape}" + ("" if labels is None else f" and {labels.shape}")
    if views.ndim != 3 or 0 in views.shape or (labels is not None and labels.shape != views.shape[1:2]):
        raise ValueError(
            f"{flag} {path}: {shapes} do not fit; give features [samples, dimensions] or embeddings [views, samples, "
            "dimensions], and labels [samples]"
        )
    count = views.shape[1]
    for name in ("split", "group", "id", "projection"):
        if name in arrays and len(arrays[name]) != count:
            raise ValueError(f"{flag} {path}: {len(arrays[name])} entries of {name} for {count} samples; give one each")
    projection = arrays.get("projection")
    declared = _texts(arrays["class_name"]) if "class_name" in arrays else None
    labels_N, class_names = (None, declared or []) if labels is None else _classes(labels, declared, f"{flag} {path}")
    ids = _texts(arrays["id"]) if "id" in arrays else [f"features/{row:06d}" for row in range(count)]
    groups = _texts(arrays["group"]) if "group" in arrays else None
    return FeatureFile(
        path,
        torch.from_numpy(np.ascontiguousarray(views)),
        None if projection is None else torch.from_numpy(np.asarray(projection, np.float32)),
        None if labels_N is None else torch.from_numpy(labels_N),
        class_names,
        _splits(_texts(arrays["split"]), f"{flag} {path}") if "split" in arrays else None,
        groups if groups and any(groups) else None,
        ids,
        _about(arrays.get("about"), path, flag),
        tuple(sorted(names)),
    )


def _arrays(path: Path, flag: str, labelled: bool) -> tuple[dict[str, NDArray[np.generic]], set[str]]:
    """Return the arrays by their singular names, features and embeddings excepted, and the names of all others."""
    try:
        stored = array_names(path)
        values = next((name for name in ("features", "embeddings", "feature", "embedding") if name in stored), None)
        if values is None:
            raise ValueError("it has no array 'features' or 'embeddings'")
        singular = ("label", "split", "group", "id", "class_name", "projection", "about")
        named = {
            kind: next((name for name in (kind, f"{kind}s", f"{kind}es") if name in stored), None) for kind in singular
        }
        if labelled and named["label"] is None:
            raise ValueError("it has no array 'labels'")
        present = {kind: name for kind, name in named.items() if name is not None}
        read = read_arrays(path, [values, *present.values()])
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"{flag} {path} cannot be read ({reason}); give an .npz with the plain arrays features (or embeddings) and "
            "labels"
        ) from None
    first = "features" if values.startswith("feature") else "embeddings"
    return dict(zip([first, *present], read, strict=True)), stored - {values, *present.values()}


def _texts(values: NDArray[np.generic]) -> list[str]:
    """Return the cells of an array as text; 1.0 is "1"."""
    if values.dtype.kind in "fb" and np.isfinite(values).all() and np.array_equal(values, values.astype(np.int64)):
        values = values.astype(np.int64)
    return [
        (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values.reshape(-1).tolist()
    ]


def _classes(
    labels: NDArray[np.generic], declared: list[str] | None, place: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Return labels from 0, and the names of the classes."""
    if labels.dtype.kind in "US":
        texts = _texts(labels)
        names = declared or sorted_labels(set(texts))
        if strange := set(texts) - set(names):
            raise ValueError(f"{place}: the label {min(strange)!r} is none of the class_names; name every class")
        return np.array([names.index(text) for text in texts], np.int64), names
    limit = len(declared) if declared else len(labels)
    if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= limit:
        raise ValueError(f"{place}: labels must be text, or whole numbers 0, 1, ... of classes that occur")
    values = labels.astype(np.int64)
    return values, declared or [str(label) for label in range(int(values.max()) + 1)]


def _splits(cells: Sequence[str], place: str) -> list[str]:
    splits = [SPLIT_OF.get(cell.casefold(), "") for cell in cells]
    if "" in splits:
        raise ValueError(f"{place}: unknown split {cells[splits.index('')]!r}; use train, val, test or pool")
    return splits


def _about(text: NDArray[np.generic] | None, path: Path, flag: str) -> dict[str, object]:
    if text is None:
        return {}
    try:
        entries = readers.parse(str(text))
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        raise ValueError(f"{flag} {path}: the array about is damaged; export the features again")
    return {name: entries[name] for name in ABOUT if name in entries}


def about_text(entries: Mapping[str, object]) -> NDArray[np.str_]:
    """Return the array `about` with these entries of ABOUT."""
    return np.array(json.dumps({name: entries[name] for name in ABOUT if name in entries}))


def as_run(file: FeatureFile, seed: int) -> Pretrained:
    """Return features in the form of a run, for linear_eval.py: with data and description, without images and network.

    Args:
        file: with labels.
        seed: of the splits that the file does not define; they are drawn by group where it has groups.

    Raises:
        ValueError: ids that are not unique, a group on two sides, or a class that a split lacks.
    """
    assert file.labels is not None
    rule = file.about.get("split_rule")
    seed = _whole(file, "seed", seed)
    settings = DatasetSettings(
        "embeddings",
        str(file.path),
        seed=seed,
        **({"split_rule": rule} if rule in (1, 2) else {}),  # type: ignore[arg-type]  # a rule
    )
    check_unique_ids(file.ids)
    texts = [file.class_names[label] for label in file.labels.tolist()]
    stored = file.splits or ["train"] * len(texts)
    splits = hold_out(file.ids, texts, file.groups, stored, missing_parts(stored), seed, settings.split_rule)
    _check_splits(file, splits)
    train = [row for row, split in enumerate(splits) if split == "train"]
    counts = count_classes(file.labels[train], len(file.class_names))
    minority = file.about.get("minority_class")
    # Features have no pixels; what asks for their shape gets the smallest one.
    preprocessing = Preprocessing("memory", Decoding(1, 1), 1, 1.0, (0.0,), (1.0,))
    dataset = Dataset(
        settings=settings,
        name=str(file.about.get("dataset", file.path.stem)),
        class_names=file.class_names,
        ids=file.ids,
        labels=file.labels,
        splits=np.array(splits, dtype="<U5"),
        groups=file.groups,
        paths=None,
        images=TensorImages(torch.empty(len(texts), 1, 1, 1, dtype=torch.uint8)),
        preprocessing=preprocessing,
        minority_class=minority if isinstance(minority, int) else minority_of(counts, file.class_names, None),
        bad_images=[],
    )
    description = Description(
        method=str(file.about.get("method", "embeddings")),
        objective={},
        encoder={"name": FEATURES, "channels": 1, "image_size": 1, "stem": "auto"},
        projection_dim=None if file.projection is None else file.projection.shape[1],
        data={**asdict(settings), "name": dataset.name},
        class_names=file.class_names,
        class_counts=counts,
        minority_class=dataset.minority_class,
        preprocessing=preprocessing,
        augmentation={},
        split_digest=dataset.split_digest(),
        seed=seed,
        natural_counts=count_classes(file.labels, len(file.class_names)),
    )
    views = ViewGenerator(PRESETS["digits"], 1, (0.0,), (1.0,), seed)
    return Pretrained(nn.Identity(), description, dataset, views, {}, _whole(file, "step", 0))  # type: ignore[arg-type]  # never called


def _whole(file: FeatureFile, name: str, default: int) -> int:
    value = file.about.get(name, default)
    return value if isinstance(value, int) else default


def _check_splits(file: FeatureFile, splits: Sequence[str]) -> None:
    """Refuse a group on two sides, and a class that one of train, val and test lacks."""
    assert file.labels is not None
    sides = ["train" if split == "pool" else split for split in splits]
    if file.groups is not None:
        side_of: dict[str, str] = {}
        for group, side in zip(file.groups, sides, strict=True):
            if side_of.setdefault(group, side) != side:
                raise ValueError(
                    f"--embeddings {file.path}: the group {group!r} is in {side_of[group]} and in {side}; put each "
                    "group into one split, or leave the array split out"
                )
    present = set(zip(file.labels.tolist(), sides, strict=True))
    for label, name in enumerate(file.class_names):
        for side in ("train", "val", "test"):
            if (label, side) not in present:
                raise ValueError(
                    f"--embeddings {file.path}: class {label} ({name}) has no sample in split {side!r}; add samples"
                )
