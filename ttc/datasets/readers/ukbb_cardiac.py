"""UK Biobank cardiac images: a dictionary of tensors by participant, and a table of labels.

Participant ids stay in memory: logs, errors and files name a sample by its place in the sorted list of participants.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc.datasets.classes import group_labels
from ttc.datasets.splits import hold_out
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.csv_file import read_table
from ttc.run.escape import counted

log = logging.getLogger("ttc")

LABELS = {"0": "no", "1": "yes"}
HELD_OUT = {"test": 0.05, "val": 0.05}
SHAPE = (3, 128, 128)
ID_COLUMN, LABEL_COLUMN = "id", "label"


def read(settings: DatasetSettings) -> Source:
    """Read the only `.pt` and the only `.csv` file in the folder; 5 % test and 5 % validation are drawn.

    Values in [0, 1] are multiplied by 255, values in [0, 255] are rounded; any other image is stretched from its own
    smallest to its largest value.
    """
    if settings.data_root is None:
        raise ValueError("--dataset ukbb-cardiac needs --data-root, the folder with the .pt file and the label table")
    root = Path(settings.data_root)
    images = _load(_only(root, ".pt"))
    labels = _labels(_only(root, ".csv"), settings.label_column or LABEL_COLUMN)
    participants = sorted(set(images) & set(labels))
    if not participants:
        raise ValueError(f"--data-root {root}: no participant has both an image and a label; compare the id formats")
    if left_out := len(set(images) ^ set(labels)):
        log.warning(
            "%s an image but no label, or the reverse; left out",
            counted(left_out, "participant has", "participants have"),
        )
    bad: list[tuple[str, str]] = []
    pixels = np.empty((len(participants), *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
    for row, participant in enumerate(participants):
        problem = _convert(images[participant], pixels[row])
        if problem and settings.on_bad_image == "stop":
            raise ValueError(
                f"--data-root {root}: image {row} in the order of ids {problem}; repair it, "
                "or pretrain with --on-bad-image skip"
            )
        if problem:
            bad.append((f"ukbb-cardiac/{row:06d}", problem))
    # By the real ids: who is in the test set then does not depend on who else takes part.
    targets = [labels[participant] for participant in participants]
    splits = hold_out(
        participants, targets, None, ["train"] * len(participants), HELD_OUT, settings.seed, settings.split_rule
    )
    bad_ids = {sample_id for sample_id, _ in bad}
    ids = [f"ukbb-cardiac/{row:06d}" for row in range(len(participants))]
    sound = [row for row, sample_id in enumerate(ids) if sample_id not in bad_ids]
    return Source(
        ids=[ids[row] for row in sound],
        labels=[targets[row] for row in sound],
        classes=group_labels(LABELS, settings.classes, settings.positive_classes),
        splits=[splits[row] for row in sound],
        held_out={},
        pixels=pixels if not bad else pixels[sound],
        bad_images=bad,
    )


def _only(root: Path, suffix: str) -> Path:
    if not root.is_dir():
        raise ValueError(f"--data-root {root} is no folder; pass the one with the .pt file and the label table")
    matching = sorted(path for path in root.iterdir() if path.suffix == suffix)
    if len(matching) != 1:
        raise ValueError(f"--data-root {root} has {len(matching)} {suffix} files; it must hold the one to read")
    return matching[0]


def _load(path: Path) -> Mapping[str, Tensor]:
    """Load the dictionary, mapped into memory where its format allows it: the file may be larger than the memory."""
    remedy = "save a dictionary {participant id: float tensor 3 x 128 x 128} with torch.save"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception:  # a damaged file fails in any way; the reason is left out, since it may quote the content
        raise ValueError(f"--data-root: {path} is damaged or holds more than tensors; {remedy}") from None
    if not isinstance(loaded, dict) or not all(isinstance(image, Tensor) for image in loaded.values()):
        raise ValueError(f"--data-root: {path} is no dictionary of tensors; {remedy}")
    images = {str(participant).strip(): image for participant, image in loaded.items()}
    if len(images) < len(loaded):
        raise ValueError(f"--data-root: {path} has a participant twice, as a number and as text; {remedy}")
    return images


def _labels(table: Path, column: str) -> dict[str, str]:
    """Return the label, "0" or "1", by participant; messages name lines, never participants."""
    labels: dict[str, str] = {}
    remedy = "the table needs the column id and a label of 0 and 1, called label or as --label-column says"
    cells = read_table(table, "--data-root:", (ID_COLUMN, column), remedy)
    for row, (participant, text) in enumerate(zip(cells.columns[ID_COLUMN], cells.columns[column], strict=True)):
        label = {"0.0": "0", "1.0": "1", "False": "0", "True": "1"}.get(text, text)
        if not participant or participant in labels or label not in LABELS:
            problem = "no id" if not participant else "an id again" if participant in labels else "no 0 or 1"
            raise ValueError(f"{cells.where(row)} has {problem}; one line each")
        labels[participant] = label
    return labels


def _convert(image: Tensor, out: NDArray[np.uint8]) -> str | None:
    """Write a float image [3, 128, 128] as bytes [128, 128, 3]; return what is wrong with it, or None."""
    if image.shape != SHAPE:
        return f"has the shape {' x '.join(map(str, image.shape))}, not 3 x 128 x 128"
    values = image.float()
    low, high = (float(end) for end in values.aminmax())
    if not np.isfinite([low, high]).all():
        return "holds NaN or infinity"
    if low == high:
        return "is blank"
    if low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    out[:] = values.round().to(torch.uint8).permute(1, 2, 0).numpy()
    return None
