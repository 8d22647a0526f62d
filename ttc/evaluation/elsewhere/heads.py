"""Frozen heads with their calibrators and predictions, and the scores that they give to other data.

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ttc.datasets import DatasetSettings
from ttc.datasets.other import read_other
from ttc.evaluation.elsewhere.frozen import FrozenHead, on_features
from ttc.evaluation.elsewhere.measure import Scored, read_scored
from ttc.evaluation.elsewhere.seen import read_seen, seen_words
from ttc.evaluation.elsewhere.weights import reported_state
from ttc.evaluation.heads import Heads, load_heads
from ttc.evaluation.new_images import encode, with_intensity
from ttc.evaluation.probabilities import NO_CALIBRATOR
from ttc.evaluation.probe import module_digest
from ttc.metrics.clinic.calibrators import Calibrator
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.models.pretrained import build_stored, class_probabilities, load_network
from ttc.run import checkpoint, files

log = logging.getLogger("ttc")


Apply = Callable[..., tuple[Scored, dict[str, list[str]]]]
"""From (settings, class_map, split, columns, num_workers) to scores and further columns."""


def frozen_heads(
    checkpoints: Sequence[str] | None,
    heads: Sequence[str] | None,
    probes: Sequence[str] | None,
    embeddings: str | None,
    device: torch.device,
) -> list[tuple[FrozenHead, Apply]]:
    """Return all heads to test, each with the function that applies it to the other data.

    Args:
        checkpoints: of the networks that read the images; None for features.
        heads: files of heads, or "own"; None for RUN/linear_eval/heads.pt.
        probes: names of the heads; None for the first that there is of all, fraction and minority, or the only one.
        embeddings: file of features, or None.
        device: of the networks.

    Raises:
        ValueError: files are missing or do not belong together.
    """
    applied: list[tuple[FrozenHead, Apply]] = []
    if embeddings is not None:
        for file in map(Path, heads or ()):
            for frozen in heads_of_file(file, probes):
                applied.append((frozen, partial(on_features, frozen, Path(embeddings))))
        return _named_apart(applied)
    checkpoints = list(checkpoints or ())
    head_files = list(heads or [None])  # type: ignore[list-item]  # None stands for the default
    if len(checkpoints) > 1 and len(head_files) not in (1, len(checkpoints)):
        raise ValueError(
            f"--head names {len(head_files)} for {len(checkpoints)} checkpoints; name one for all, or one each"
        )
    pairs = (
        [(path, head) for path in checkpoints for head in head_files]
        if len(checkpoints) == 1 or len(head_files) == 1
        else list(zip(checkpoints, head_files, strict=True))
    )
    told: set[tuple[Path, ...]] = set()
    for path, head in pairs:
        network, description, state = load_network(path, device)
        runs = _runs_of(path, state)
        for frozen in heads_of_checkpoint(path, head, probes, network, description, state):
            once = () if runs in told else runs
            applied.append((frozen, partial(_on_images, frozen, network, description, once)))
            told.add(runs)
    return _named_apart(applied)


def _runs_of(path: str, state: checkpoint.State) -> tuple[Path, ...]:
    """Return where the split of a checkpoint may be told: its run folder, or that of the run it was fine-tuned from."""
    run, began = files.folder_of(path), state["args"].get("checkpoint")
    if state["kind"] != checkpoint.FINETUNE:
        return (run,)
    return (run, run.parent, *([files.folder_of(began)] if isinstance(began, str) else []))


def _named_apart(applied: list[tuple[FrozenHead, Apply]]) -> list[tuple[FrozenHead, Apply]]:
    """Put the run's name before the head's where two heads would have the same name."""
    names = [head.name for head, _ in applied]
    if len(set(names)) == len(names):
        return applied
    renamed: list[tuple[FrozenHead, Apply]] = []
    for head, apply in applied:
        run = Path(head.source).resolve().parent.parent
        name = f"{run.name} {head.probe}"
        changed = replace(head, name=name)
        renamed.append((changed, partial(apply.func, changed, *apply.args[1:])))  # type: ignore[attr-defined]  # a partial
    if len({head.name for head, _ in renamed}) < len(renamed):
        raise ValueError("--checkpoint: two of the runs have the same name and head; test them separately")
    return renamed


def heads_of_file(path: Path, probes: Sequence[str] | None) -> list[FrozenHead]:
    """Return heads of a file for features that were made elsewhere; see `frozen_heads`."""
    return _choose(_load(path, "linear_eval.py --embeddings"), probes, path)


def _load(path: Path, remedy: str, within: Path | None = None) -> Heads:
    if not path.is_file():
        raise ValueError(f"--head {path} is missing; run {remedy}")
    return load_heads(path, within)


def heads_of_checkpoint(
    path: str,
    head: str | None,
    probes: Sequence[str] | None,
    network: PretrainNetwork,
    description: Description,
    state: checkpoint.State,
) -> list[FrozenHead]:
    """Return the heads of a checkpoint, or the classifier in it.

    Args:
        path: the checkpoint.
        head: file of heads, "own", or None for RUN/linear_eval/heads.pt, and for "own" where a fine-tuned run has none.
        probes: see `frozen_heads`.
        network: of `load_network`, and so on.
        description: of the run.
        state: content of the checkpoint.
    """
    run = files.folder_of(path)
    if head is None and state["kind"] == checkpoint.FINETUNE and not (run / "linear_eval" / "heads.pt").is_file():
        head = "own"
    if head != "own":
        file = Path(head) if head is not None else run / "linear_eval" / "heads.pt"
        within = run if head is None else None
        stored = _load(file, f"linear_eval.py on {path}, or use --head own", within)
        if stored.encoder_sha256 != module_digest(network) or stored.class_names != description.class_names:
            raise ValueError(f"--head {file} belongs to another encoder; run linear_eval.py on {path}")
        chosen = _choose(stored, probes, file, within)
        counts = description.natural_counts
        return [replace(frozen, description=description, natural_counts=counts) for frozen in chosen]
    state = reported_state(path, state)
    with checkpoint.contents(Path(path)):
        objective = build_stored(network, description, state["objective"])
        stored_calibrator = state.get("extra", {}).get("calibrator")
        positive = state["args"].get("positive_class")  # of finetune.py, whose predictions are beside it
    width = torch.zeros(1, network.feature_dim, device=next(network.parameters()).device)
    if objective.classifier(width) is None:
        raise ValueError(f"--head own: --method {description.method} trains no classifier; leave --head out")
    digest, heads = module_digest(network), run / "linear_eval" / "heads.pt"
    calibrator = Calibrator.of(stored_calibrator) if isinstance(stored_calibrator, dict) else None
    folder = run
    if calibrator is None and heads.is_file() and (stored := load_heads(heads, run)).encoder_sha256 == digest:
        calibrator, folder, positive = stored.calibrators.get("own"), heads.parent, stored.positive_class
    if not isinstance(positive, int):
        positive = 1 if description.minority_class is None else description.minority_class
    return [
        FrozenHead(
            "own",
            path,
            "own",
            partial(class_probabilities, objective),
            _warned(calibrator, path),
            partial(read_scored, folder / "predictions.csv", "own", positive, run),
            description.class_names,
            positive,
            description,
            digest,
            description.natural_counts,
        )
    ]


def _choose(stored: Heads, probes: Sequence[str] | None, path: Path, within: Path | None = None) -> list[FrozenHead]:
    """Return the heads of a file that are asked for, with the calibrators and predictions beside it."""
    usual: list[str] = [name for name in ("all", "fraction", "minority") if name in stored.heads]
    if not usual and len(stored.heads) == 1:
        usual = list(stored.heads)
    names = list(probes or usual[:1])
    if missing := [name for name in names if name not in stored.heads]:
        raise ValueError(f"--probe {missing[0]}: --head {path} has {', '.join(stored.heads) or 'none'}")
    if not names:
        raise ValueError(f"--head {path} has the probes {', '.join(stored.heads) or 'none'}; choose with --probe")
    return [
        FrozenHead(
            name,
            str(path),
            name,
            stored.heads[name],
            _warned(stored.calibrators.get(name), str(path)),
            partial(read_scored, path.with_name("predictions.csv"), name, stored.positive_class, within),
            stored.class_names,
            stored.positive_class,
            None,
            stored.encoder_sha256,
            stored.natural_counts,
        )
        for name in names
    ]


def _warned(calibrator: Calibrator | None, source: str) -> Calibrator | None:
    """Return the calibrator; warn where there is none."""
    if calibrator is None:
        log.warning(NO_CALIBRATOR, source, "evaluate the run again in a new folder")
    return calibrator


def _on_images(
    head: FrozenHead,
    network: PretrainNetwork,
    description: Description,
    runs: Sequence[Path],
    settings: DatasetSettings,
    class_map: Mapping[str, str],
    split: str | None,
    columns: Sequence[str],
    num_workers: int,
) -> tuple[Scored, dict[str, list[str]]]:
    """Score the images of another source; warn of those that are told in a split.csv in `runs` as seen before."""
    decoding = description.preprocessing.decoding
    if settings.intensity != "auto":
        decoding = with_intensity(decoding, settings.intensity)
    other = read_other(
        settings,
        head.class_names,
        class_map=class_map,
        run=description.dataset_settings(),
        split=split,
        decoding=decoding,
        columns=columns,
    )
    seen = read_seen(runs)
    words = None if seen is None else seen_words(other, seen, description.dataset_settings(), decoding)
    if words is not None:
        log.warning("%s", words)
    features, _ = encode(network, description, other.images, num_workers)
    samples = Scored(other.labels, head.scores(features), other.groups, other.ids)
    return samples, dict(other.columns)
