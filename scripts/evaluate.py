"""Test frozen heads on other data: another hospital, another forest, another year.

python scripts/evaluate.py --checkpoint runs/NAME --dataset csv --data-root OTHER.csv
python scripts/evaluate.py --checkpoint runs/NAME/finetune --dataset csv --data-root OTHER.csv     best.pt of the run
python scripts/evaluate.py --head runs/NAME/linear_eval/heads.pt --embeddings OTHER.npz
python scripts/evaluate.py --scores FILE.csv                 columns id, label (0 or 1), score, perhaps group; no model

Thresholds and calibrators are those that the run's validation chose. Beside the external numbers stand those of the
run's own test split, the difference with an interval for independent samples, and the calibration after a new intercept
(recalibration in the large, fitted on the external labels and labelled so). Several checkpoints, heads or probes make
one table.

Writes result.json, predictions.csv, report_card.md and figures to RUN/external/NAME, and the result to standard output.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas

from ttc import flags
from ttc.evaluation.elsewhere.doubts import swapped_classes
from ttc.evaluation.elsewhere.frozen import OUTSIDE, FrozenHead, read_scores
from ttc.evaluation.elsewhere.heads import frozen_heads
from ttc.evaluation.elsewhere.measure import Scored, evaluate_elsewhere, subgroups
from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.heads import load_heads
from ttc.evaluation.probabilities import check_prevalences, columns
from ttc.flags import data_settings, settings
from ttc.flags.heads import name_positive_class, names_of_checkpoint, protocol_of
from ttc.flags.parser import Parser
from ttc.results.clinic.figures import draw_clinical
from ttc.results.clinic.report_card import report_card
from ttc.results.clinic.tables import format_external
from ttc.run import files, ledger, readers, runtime
from ttc.run.checkpoint import write_text
from ttc.run.escape import counted
from ttc.run.folder import RunFolder, tell
from ttc.run.log import log, start_logging


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Test frozen heads on other data.",
        "python scripts/evaluate.py --checkpoint runs/a/checkpoints/last.pt --dataset csv --data-root OTHER.csv",
        writes_run=True,
    )
    flags.add_tested(parser)
    flags.add_other_data(parser)
    flags.add_groups(parser)
    flags.add_clinical(parser)
    flags.add_runtime(parser, precision=False)
    flags.add_evaluation_output(parser)
    flags.add_figures(parser)
    flags.add_json(parser)
    return parser


def refuse_idle(parser: Parser, args: argparse.Namespace) -> None:
    """End with exit code 2 unless the flags say what is tested on what."""
    ways = [args.scores, args.embeddings, args.dataset]
    if sum(way is not None for way in ways) != 1:
        parser.refuse("give one of --dataset (with --checkpoint), --embeddings (with --head) and --scores")
    if args.dataset is not None and args.checkpoint is None:
        parser.refuse("--dataset needs --checkpoint, whose network reads the images")
    if args.dataset is None and args.intensity is not None:
        parser.refuse("--intensity is for images; leave it out without --dataset")
    if args.embeddings is not None and (args.head is None or args.checkpoint is not None):
        parser.refuse("--embeddings needs --head, and takes no --checkpoint")
    if args.scores is not None and (args.head or args.checkpoint or args.probe):
        parser.refuse("--scores takes no --checkpoint, --head or --probe")
    if args.scores is not None and args.positive_class not in (None, 1):
        parser.refuse("--scores are those of label 1; leave --positive-class out")


def output_folder(args: argparse.Namespace) -> Path:
    """Return where the result goes: the flag, or a folder named after the other data."""
    if args.output is not None:
        return Path(args.output)
    if args.scores is not None:
        return Path(args.scores).with_suffix("") / "external"
    if args.embeddings is not None:
        return Path(args.head[0]).parent.parent / "external" / Path(args.embeddings).stem
    name = args.dataset if args.data_root is None else Path(args.data_root).stem
    return files.folder_of(args.checkpoint[0]) / "external" / name


def digest_of_inputs(args: argparse.Namespace) -> str:
    """Return the sha256 over all files that are named; if one has changed, this is another evaluation."""
    paths = [*(args.checkpoint or ()), *(args.head or ()), args.embeddings, args.scores, args.data_root]
    digests = [
        settings.file_digest(path) if Path(path).is_file() else path for path in paths if path not in (None, "own")
    ]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def digest_of_heads(args: argparse.Namespace) -> str:
    """Return the sha256 over the heads and predictions of the runs, which linear_eval.py may have written again."""
    named = [Path(head) for head in args.head or () if head != "own"]
    heads = named or [files.folder_of(path) / "linear_eval" / "heads.pt" for path in args.checkpoint or ()]
    paths = [path for head in heads for path in (head, head.with_name("predictions.csv")) if path.is_file()]
    return hashlib.sha256("\n".join(settings.file_digest(str(path)) for path in paths).encode()).hexdigest()


def class_names(args: argparse.Namespace) -> list[str]:
    """Return the names of the classes of the first head."""
    if args.scores is not None:
        return ["0", "1"]
    return names_of_checkpoint(args.checkpoint[0]) if args.checkpoint else load_heads(Path(args.head[0])).class_names


def class_map(words: list[str] | None) -> dict[str, str]:
    """Read --class-map."""
    pairs = [word.rpartition("=") for word in words or ()]
    if wrong := [word for word, (_, mark, _) in zip(words or (), pairs, strict=True) if not mark]:
        raise ValueError(f"--class-map {wrong[0]}: write OTHER=NAME, the class of the other data first")
    return {first: second for first, _, second in pairs}


def scored(
    args: argparse.Namespace,
) -> tuple[list[tuple[FrozenHead, Scored]], list[str], int, dict[str, list[str]]]:
    """Return every head with its scores, the names of the classes, the positive class and the subgroup columns."""
    if args.scores is not None:
        samples, further = read_scores(Path(args.scores), args.subgroup_columns or ())
        return [(OUTSIDE, samples)], ["0", "1"], 1, further
    device = runtime.pick_device(args.device)
    other_data = data_settings.other_settings(args) if args.dataset is not None else None
    heads = frozen_heads(args.checkpoint, args.head, args.probe, args.embeddings, device)
    positive = {head.positive_class for head, _ in heads}
    names = heads[0][0].class_names
    if len(positive) > 1 or any(head.class_names != names for head, _ in heads):
        raise ValueError("--checkpoint: the heads have other classes or another positive class; test them separately")
    positive_class = positive.pop() if args.positive_class is None else args.positive_class
    pairs, further = [], {}
    for head, encode in heads:
        samples, further = encode(
            other_data, class_map(args.class_map), args.split, args.subgroup_columns or (), args.num_workers
        )
        pairs.append((replace(head, positive_class=positive_class), samples))
    return pairs, names, positive_class, further


def predictions(name: str, samples: Scored, probabilities: np.ndarray | None, positive: int) -> pandas.DataFrame:
    """Return the predictions of a head by sample, in the format of linear_eval.py."""
    empty = np.full_like(samples.scores_NK, np.nan)
    return pandas.DataFrame(
        {
            "id": samples.ids,
            "label": samples.labels_N,
            **columns("score", samples.scores_NK, positive),
            **columns("probability", empty if probabilities is None else probabilities, positive),
            "split": "test",
            "group": samples.groups or "",
            "probe": name,
        }
    )


def measure(
    args: argparse.Namespace, folder: Path, pairs: list[tuple[FrozenHead, Scored]], names: list[str], positive: int,
    further: dict[str, list[str]],
) -> tuple[dict[str, Any], list[pandas.DataFrame]]:  # fmt: skip
    """Evaluate every head; return the entries of the result and the predictions."""
    protocol = protocol_of(args, positive)
    probes: dict[str, dict[str, object]] = {"external": {}, "internal": {}, "difference": {}}
    facts, tables = {}, []
    for head, samples in pairs:
        held = head.held((args.deploy_prevalence or [None])[0])
        shares, stated = (None, "none") if held is None else held
        probabilities = None if head.calibrator is None else head.calibrator(samples.scores_NK, shares)
        parts = evaluate_elsewhere(samples, head.kept, head.calibrator, shares, protocol)
        details = parts["external"]["details"]
        assert isinstance(details, dict)
        threshold = details.get("thresholds", {}).get("youden")
        details["subgroups"] = subgroups(samples, probabilities, further, threshold, positive)
        for section, metrics in parts.items():
            if metrics:
                probes[section][head.name] = metrics
        facts[head.name] = {
            "source": head.source,
            "probe": head.probe,
            "encoder_sha256": head.encoder_sha256,
            "calibrator": None if head.calibrator is None else head.calibrator.kind,
            "probabilities_hold_at": None if shares is None else list(shares),
            "prevalence_of": stated,
        }
        tables.append(predictions(head.name, samples, probabilities, positive))
        if args.figures != "none":
            draw_clinical(folder, head.name if len(pairs) > 1 else "", samples, head.kept.get("test"), parts, positive)
    return {"heads": facts, "probes": {name: entry for name, entry in probes.items() if entry}}, tables


def main() -> int:
    """Read, score, measure, compare."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    refuse_idle(parser, args)
    start_logging(main=True)
    if args.checkpoint is not None:
        args.checkpoint = given.values["checkpoint"] = [checkpoint_of(path) for path in args.checkpoint]

    # 2. folder
    folder = RunFolder(output_folder(args))
    name_positive_class(given, args, lambda: class_names(args))
    identity = {**given.values, "input_sha256": digest_of_inputs(args)}
    heads_digest = digest_of_heads(args)
    if folder.claim(identity):
        # Results of earlier versions do not say which heads they are about.
        if readers.read_result(folder.result, folder.path).get("heads_sha256", heads_digest) != heads_digest:
            raise ValueError(f"--output {folder.path} is about heads that have changed since; choose another folder")
        log.info("%s holds the finished result of this command; nothing to do", folder.path)
        folder.tell(args.json)
        return 0

    with folder.taken_back():
        # 3. scores
        pairs, names, positive, further = scored(args)
        check_prevalences(args.deploy_prevalence, len(names))
        samples = pairs[0][1]
        count = int((samples.labels_N == positive).sum())
        log.info("%s, %d of class %s", counted(len(samples.ids), "sample"), count, names[positive])

        # 4. measures
        entries, tables = measure(args, folder.path, pairs, names, positive, further)
    description = pairs[0][0].description
    result = {
        "kind": "external",
        "dataset": args.dataset or "embeddings" if args.scores is None else "scores",
        "method": None if description is None else description.method,
        "seed": args.seed,
        "split": None,
        "class_names": names,
        "positive_class": positive,
        "test_samples": len(samples.ids),
        "heads_sha256": heads_digest,
        **entries,
    }

    # 5. result
    folder.save_arguments(identity, {**given.sources, "input_sha256": "content of the files"}, {})
    write_text(folder.path / "predictions.csv", pandas.concat(tables).to_csv(index=False))
    result = ledger.complete(result, given.values)
    for line in format_external(result):
        log.info("%s", line)
    remedy = "the labels in --scores" if args.scores is not None else "--class-map"
    for name, metrics in entries["probes"]["external"].items():
        if (doubt := swapped_classes(name, metrics, remedy)) is not None:
            log.warning("%s", doubt)
    write_text(folder.path / "report_card.md", report_card(result, description))
    folder.save_json("result.json", result)
    tell(result, folder.result, args.json)
    return 0


if __name__ == "__main__":
    runtime.run(main)
