"""What a run tells: console, log.txt, metrics.jsonl and TensorBoard. The only user of tensorboard."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor
from torch.nn import functional

from ttc.run import escape, files
from ttc.run.folder import truncate_jsonl

if TYPE_CHECKING:
    import pandas
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("ttc")
T = TypeVar("T")


class _Lines(logging.Formatter):
    """Prints control characters of names as escapes: a record is one line, whatever is in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        return escape.plain(super().formatMessage(record))


class _Console(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in type stubs before Python 3.11
    """Writes above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names the file or folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} could not be written ({error.strerror}); free space there or choose another --output"
        ) from None


class _File(logging.FileHandler):
    """Stops the run when its log cannot be written, instead of printing a traceback and going on."""

    def _open(self) -> TextIOWrapper:  # logging's name
        return files.open_append(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        with writing(Path(self.baseFilename)):
            raise  # noqa: PLE0704  # called while the error is being handled


def _quiet_writer(failure: threading.ExceptHookArgs) -> None:
    """Print no traceback for TensorBoard's writing thread: the next write raises its error in the main thread."""
    if not type(failure.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(failure)


def start_logging(main: bool, folder: Path | None = None) -> None:
    """Send the log to stderr and, with a folder, to its log.txt; ranks other than the main one only warn, on stderr.

    Args:
        main: whether this process speaks for the run.
        folder: the run folder.
    """
    log.setLevel(logging.INFO if main else logging.WARNING)
    log.propagate = False
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    console = _Console()
    console.setFormatter(_Lines())
    log.addHandler(console)
    if main and folder is not None:
        file = _File(folder / "log.txt")
        file.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


class RunLog:
    """Writes the numbers of a run under the same keys to metrics.jsonl and TensorBoard; does nothing on other ranks."""

    def __init__(self, folder: Path, *, main: bool, step: int = 0) -> None:
        """Open the files.

        Args:
            folder: the run folder.
            main: whether this process writes.
            step: the step from which the run continues; what was logged after it is dropped.
        """
        self.main, self._folder = main, folder
        self._writer: SummaryWriter | None = None
        if main:
            truncate_jsonl(folder / "metrics.jsonl", step)
            self._lines = files.open_append(folder / "metrics.jsonl")
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = _quiet_writer
            if not step:
                # A run that was killed before its first checkpoint starts anew; TensorBoard never purges its texts.
                for stale in (folder / "tb").glob("events.*"):
                    stale.unlink()
            self._writer = SummaryWriter(str(folder / "tb"), purge_step=step + 1)

    def scalars(self, *, step: int, epoch: int, images: int, values: Mapping[str, float]) -> None:
        """Log numbers.

        Args:
            step: optimizer steps taken.
            epoch: epochs completed or under way, from 0.
            images: training samples seen by all ranks.
            values: key such as "train/loss" -> finite or non-finite number; non-finite ones are written as null.
        """
        if self._writer is None:
            return
        finite = {key: value if abs(value) < float("inf") else None for key, value in values.items()}
        with writing(self._folder):
            self._lines.write(json.dumps({"step": step, "epoch": epoch, "images": images, **finite}) + "\n")
            self._lines.flush()
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)

    def text(self, key: str, lines: list[str], step: int = 0) -> None:
        """Show lines as preformatted text in TensorBoard."""
        if self._writer is not None:
            self._writer.add_text(key, "\n".join("    " + escape.plain(line) for line in lines), step)

    def image_grid(self, key: str, images: Tensor, step: int = 0) -> None:
        """Show images [N, C, H, W] float in [0, 1] as one grid in TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(key, _grid(images, columns=8), step)

    def charts(self, charts: Mapping[str, list[str]]) -> None:
        """Show several numbers in one chart of TensorBoard's custom scalars: title -> keys."""
        if self._writer is not None:
            # TensorBoard takes the keys for regular expressions; class1 is not to match class10.
            lines = {title: ["Multiline", [f"{key}$" for key in keys]] for title, keys in charts.items()}
            self._writer.add_custom_scalars({"classes side by side": lines})

    def hparams(self, values: Mapping[str, object], results: Mapping[str, float]) -> None:
        """Make the run a row of TensorBoard's HPARAMS table; once, at the end.

        Args:
            values: flag -> value.
            results: key -> final number; the keys are those of `scalars`.
        """
        if self._writer is not None:
            from torch.utils.tensorboard.summary import hparams

            plain_values = {
                key: value if isinstance(value, bool | int | float | str) else str(value)
                for key, value in values.items()
            }
            # The writer's own add_hparams would open a second run under another name.
            for summary in hparams(plain_values, dict(results)):  # type: ignore[no-untyped-call]  # torch
                self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]  # torch

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self._writer is not None:
            with writing(self._folder):
                self._lines.flush()
                os.fsync(self._lines.fileno())
                self._writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            with writing(self._folder):
                self._writer.close()
                self._lines.close()


def _grid(images_NCHW: Tensor, columns: int) -> Tensor:
    """Lay images out row by row, framed in black, as one image [C, H', W']."""
    framed = functional.pad(images_NCHW, (1, 1, 1, 1, 0, 0, 0, -len(images_NCHW) % columns))
    rows = framed.view(-1, columns, *framed.shape[1:])
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


class Progress:
    """One tqdm bar for the run on a terminal; without a terminal nothing, and `epoch` writes one line per epoch."""

    def __init__(self, *, steps: int, first: int, main: bool) -> None:
        """Open the bar.

        Args:
            steps: steps of the whole run.
            first: steps already done.
            main: whether this process speaks for the run.
        """
        from tqdm import tqdm

        self.tty = main and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=first, disable=not self.tty, unit="step", dynamic_ncols=True)
        self._steps_left = steps - first
        self._since, self._images, self._steps = time.perf_counter(), 0, 0

    def step(self, images: int) -> None:
        """Count a step that saw `images` samples."""
        self._images += images
        self._steps += 1
        self._bar.update()

    def epoch(self, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
        """Tell how an epoch (counted from 1) ended: on the bar, or as a line of the log.

        The line's rate and the time left are those of the steps since the line before it, everything between included:
        a run that has become slower, or was slow to start, tells the truth about now. The bar's rate is tqdm's own.
        """
        text = "  ".join(f"{key.rsplit('/', 1)[-1]} {value:.4g}" for key, value in values.items())
        self._bar.set_postfix_str(text)
        now = time.perf_counter()
        seconds, self._steps_left = max(1e-9, now - self._since), self._steps_left - self._steps
        if not self.tty:
            rate, left = self._images / seconds, self._steps_left * seconds / max(1, self._steps)
            log.info("epoch %d/%d  %s  %.0f images/s  %s left", epoch, epochs, text, rate, duration(left))
        self._since, self._images, self._steps = now, 0, 0

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()


def with_bar(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield items; on a terminal a bar tells how many are done."""
    from tqdm import tqdm

    yield from tqdm(items, what, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False)


def duration(seconds: float) -> str:
    """Return a time for people: "40 s", "12 min", "3.5 h", "2.1 days"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def save_projector(folder: Path, rows: Tensor, labels: list[str], sprites: Tensor) -> None:
    """Write embeddings [N, D] with labels and sprites [N, C, H, W] in [0, 1] for TensorBoard's projector."""
    from torch.utils.tensorboard import SummaryWriter

    names = [escape.plain(label) for label in labels]
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(rows, metadata=names, label_img=sprites, tag="embeddings")


def save_calibration(folder: Path, results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the calibration of each head before and after it was calibrated for TensorBoard.

    Args:
        folder: where the event file goes.
        results: metrics by section and probe, with "calibration" -> "before" and "after" -> estimates.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for section, probes in results.items():
            for probe, metrics in probes.items():
                for when, estimates in metrics["calibration"].items():
                    for name, estimate in estimates.items():
                        if estimate["mean"] is not None:
                            writer.add_scalar(f"calibration/{section}/{probe}/{name}_{when}", estimate["mean"], 0)


def save_pr_curves(folder: Path, predictions: pandas.DataFrame, positive_class: int) -> None:
    """Write the precision-recall curve of each probe on the test split for TensorBoard.

    Args:
        folder: where the event file goes.
        predictions: columns probe, split, label and, with two classes, score; with more there is no such curve.
        positive_class: the label whose probability is the score.
    """
    from torch.utils.tensorboard import SummaryWriter

    if "score" not in predictions:
        return
    with SummaryWriter(str(folder)) as writer:
        for probe, rows in predictions[predictions["split"] == "test"].groupby("probe", sort=False):
            writer.add_pr_curve(f"test/{probe}", rows["label"].to_numpy() == positive_class, rows["score"].to_numpy())
