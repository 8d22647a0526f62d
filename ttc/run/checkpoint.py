"""Checkpoints: one schema, written atomically, verified when read, free of pickled objects.

A checkpoint holds tensors, numbers, strings, lists and dicts only, so that `torch.load(weights_only=True)` reads it.
Beside `NAME.pt` lies `NAME.pt.sha256` in the format of `sha256sum`. It is written BEFORE the checkpoint is replaced and
then lists the digests of the old and of the new file, so that at no moment a complete checkpoint lacks its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ttc import distributed
from ttc.run import files

State: TypeAlias = dict[str, Any]
"""What a checkpoint holds; its values are checked by `torch.load(weights_only=True)`, not by a type."""

FORMAT = "ttc-checkpoint-1"
"""Version of the schema; a reader refuses what it does not know."""

PRETRAIN, FINETUNE = "pretrain", "finetune"
"""Kinds of the checkpoints that the training scripts write."""

TEMPORARY = ".*.tmp"
"""Pattern of the unfinished files that a killed process leaves."""

_log = logging.getLogger("ttc")


def write_text(path: Path, text: str) -> None:
    """Replace a small text file atomically."""
    files.replace(path, text.encode())


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def save(path: Path, kind: str, state: State, keep_previous: Path | None = None) -> None:
    """Write a checkpoint atomically.

    Args:
        path: where; the folder is made.
        kind: what the checkpoint is, for example "pretrain"; `load` asks for it.
        state: tensors, numbers, strings, lists and dicts.
        keep_previous: where the file that `path` holds now is kept.

    Raises:
        ValueError: it could not be written; the old file is intact.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "kind": kind, **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    if keep_previous is not None and path.exists():
        current = files.read_bytes(path, files.run_of(path))
        # A damaged file must not take the place of the one that the run went back to.
        if hashlib.sha256(current).hexdigest() in _digests(path):
            _replace(keep_previous, current)
    _replace(path, buffer.getbuffer())


def _replace(path: Path, data: bytes | memoryview) -> None:
    new = hashlib.sha256(data).hexdigest()
    write_text(_digest_file(path), "".join(f"{digest}  {path.name}\n" for digest in (*_digests(path), new)))
    files.replace(path, data)
    write_text(_digest_file(path), f"{new}  {path.name}\n")


def _digests(path: Path) -> list[str]:
    try:
        text = files.read_bytes(_digest_file(path), files.run_of(path)).decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def unpack(data: bytes) -> object:
    """Read what `torch.save` wrote, onto the CPU; no object in it is ever called.

    Raises:
        ValueError: the bytes are damaged, or hold more than tensors, numbers, strings, lists and dicts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about foreign pickle protocols; they are refused anyway
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # on arbitrary bytes the unpickler raises almost anything
            raise ValueError(f"no file of plain tensors ({type(error).__name__})") from None


def load(path: Path, *kinds: str, within: Path | None = None) -> State:
    """Read and verify a checkpoint onto the CPU.

    Args:
        path: the file; in RUN/checkpoints it must not be reached through links from RUN on.
        kinds: what the caller can use.
        within: the run folder of a file that lies elsewhere in it.

    Raises:
        ValueError: missing, damaged, foreign or of another kind; one line with the path and what to do.
    """
    try:
        data = files.read_bytes(path, within or files.run_of(path))
    except OSError as error:
        raise ValueError(f"checkpoint {path} cannot be read ({error.strerror}); pass an existing .pt file") from None
    digests = _digests(path)
    if digests and hashlib.sha256(data).hexdigest() not in digests:
        raise ValueError(
            f"checkpoint {path} is damaged (its sha256 is not in {_digest_file(path).name}); use another one"
        )
    try:
        state = unpack(data)
    except ValueError:
        raise ValueError(f"checkpoint {path} is truncated or no checkpoint of this project; use another one") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        actual = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"checkpoint {path} has format {actual!r}, not {FORMAT!r}; pass one that pretrain.py wrote")
    if state.get("kind") not in kinds:
        expected = " or ".join(map(repr, kinds))
        raise ValueError(f"checkpoint {path} is of kind {state.get('kind')!r}, not {expected}; pass one of that kind")
    return state


@contextlib.contextmanager
def contents(path: Path) -> Iterator[None]:
    """Turn what the use of a checkpoint with missing or wrong parts raises into one line.

    Raises:
        ValueError: instead of the errors of dicts, dataclasses and `load_state_dict`.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"checkpoint {path} has missing or wrong parts ({reason}); use another one") from error


def load_latest(folder: Path, kind: str) -> tuple[State, Path] | None:
    """Read `last.pt` of a run's checkpoint folder, or with a warning the newest other one when it is damaged.

    Returns:
        The state and its file, or None when the run has no checkpoint yet.

    Raises:
        ValueError: there are checkpoints, but none can be used.
    """
    problems = []
    for path in (folder / "last.pt", folder / "previous.pt", *sorted(folder.glob("epoch_*.pt"), reverse=True)):
        if path.exists():
            try:
                state = load(path, kind)
            except ValueError as error:
                problems.append(error)
                continue
            if problems and distributed.rank() == 0:
                _log.warning("%s; going back to %s (step %s)", problems[0], path, state.get("step"))
            return state, path
    if problems:
        raise problems[0]
    return None
