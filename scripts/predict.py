"""Classify new images, with the linear head that linear_eval.py fitted or with a network's own classifier.

python scripts/predict.py --checkpoint runs/NAME --images FOLDER               the probe that linear_eval.py fitted
python scripts/predict.py --checkpoint runs/NAME/finetune --images FOLDER      best.pt, the weights of the best epoch
python scripts/predict.py --head NAME/linear_eval/heads.pt --embeddings FILE.npz      a head of features

Writes one line per image: id, score (raw output for the positive class, for ranking and thresholds; one column per
class where there are more than two), probability (calibrated on validation, then moved to the prevalence of the source
data or to --deploy-prevalence), prevalence (at which the probability holds), prediction (label), class (name), and the
columns of --subgroup-columns. With --per-group a second table has one line per group (patient, breast, camera event);
its thresholds and probabilities are those of the groups of validation. Weights of a fine-tuned run that its result,
thresholds and calibrator are not about, such as those of the last epoch, are refused.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from torch import Tensor

from ttc import flags
from ttc.datasets.checks.doubts import check_groups
from ttc.datasets.images import FileImages, find_bad_images
from ttc.datasets.pixels.decoding import PASS_SKIP
from ttc.evaluation.elsewhere.frozen import FrozenHead, features_for
from ttc.evaluation.elsewhere.heads import heads_of_checkpoint, heads_of_file
from ttc.evaluation.elsewhere.measure import Protocol, check_subgroups
from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.new_images import encode, read_images
from ttc.evaluation.new_predictions import (
    decide_groups,
    decide_samples,
    describe_subgroups,
    group_table,
    read_columns,
    read_groups,
)
from ttc.evaluation.probabilities import check_prevalences
from ttc.flags import settings
from ttc.flags.parser import Parser, real
from ttc.metrics.thresholds import RULES
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.models.pretrained import load_network
from ttc.run import files, runtime
from ttc.run.checkpoint import write_text
from ttc.run.escape import counted
from ttc.run.log import log, start_logging


@dataclass(frozen=True, eq=False)
class Samples:
    """What is classified.

    Attributes:
        ids: of all samples.
        rows: which of them could be read.
        features: [N, F] of these.
        groups: of all samples; None unless they are asked for.
        columns: further columns of all samples.
    """

    ids: list[str]
    rows: list[int]
    features: Tensor
    groups: list[str] | None
    columns: dict[str, list[str]]


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Classify new images with a pretrained encoder and its linear head.",
        "python scripts/predict.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt --images FOLDER",
    )
    add_samples(parser)
    add = parser.add_argument_group("head").add_argument
    add(
        "--head",
        metavar="FILE|own",
        help="heads of linear_eval.py, if not RUN/linear_eval/heads.pt; own is the classifier in the checkpoint "
        "itself: of finetune.py, or of a method that trains one",
    )
    add(
        "--probe",
        metavar="NAME",
        help="which of its heads, such as all or 'logit-adjusted all'; the default is the first of all, fraction and "
        "minority, or the only one",
    )
    add(
        "--threshold",
        type=threshold,
        default=0.5,
        metavar="T|RULE",
        help="two classes: score from which on the positive class is predicted, or the rule that chooses it on the "
        f"validation predictions of linear_eval.py: {', '.join(RULES)}",
    )
    add(
        "--deploy-prevalence",
        type=real(0, 0.999999, above=True),
        metavar="P",
        help="share of the positive class where the images come from (of positive groups for their table); set it "
        "where it is known, since probabilities hold at one prevalence only; the default is that of the run's source "
        "data, and for groups that of validation",
    )
    flags.add_groups(parser)
    flags.add_runtime(parser, precision=False)
    parser.add_argument_group("output").add_argument(
        "--output",
        default="predictions.csv",
        metavar="FILE",
        help="table to write; that of groups is beside it, NAME_groups.csv; - writes to standard output",
    )
    return parser


def add_samples(parser: Parser) -> None:
    """Add what is classified."""
    add = parser.add_argument_group("data").add_argument
    add(
        "--checkpoint",
        metavar="RUN|FILE",
        help="run folder, whose best.pt (fine-tuned) or last.pt is used, or a checkpoint; needed with --images",
    )
    add(
        "--images",
        metavar="PATH",
        help="a folder of image files, a CSV table with a column path, or an npz file with an array images",
    )
    add(
        "--embeddings",
        metavar="FILE.npz",
        help="features [N, F] (or embeddings) and perhaps ids and groups; set it, with --head, for a head that "
        "linear_eval.py --embeddings fitted",
    )
    add("--path-column", metavar="NAME", help="column of the file in the table, if it is not called path")
    add("--id-column", metavar="NAME", help="column of the image's id in the table, if it is not called id")
    add(
        "--group-column",
        metavar="NAME",
        help="column of the group in the table, or array of the npz file, if it is not called group (groups)",
    )
    add(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="skip leaves score and prediction of unreadable files empty",
    )
    flags.add_intensity(add)


def threshold(text: str) -> float | str:
    """Read --threshold: a rule's name or a number in [0, 1]."""
    try:
        return text if text in RULES else real(0, 1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; give a number, or a rule of {', '.join(RULES)}") from None


def refuse_idle(parser: Parser, args: argparse.Namespace) -> None:
    """End with exit code 2 unless it is clear what is classified by what."""
    if (args.images is None) == (args.embeddings is None):
        parser.refuse("give either --images (with --checkpoint) or --embeddings (with --head)")
    if args.images is not None and args.checkpoint is None:
        parser.refuse("--images needs --checkpoint, whose network reads the images")
    if args.embeddings is not None and (args.checkpoint is not None or args.head in (None, "own")):
        parser.refuse("--embeddings needs --head FILE, and takes no --checkpoint")
    for name in ("path_column", "id_column", "intensity"):
        if args.embeddings is not None and getattr(args, name) is not None:
            parser.refuse(f"--{name.replace('_', '-')} is for images; leave it out with --embeddings")
    if args.group_column is not None and args.per_group is None:
        parser.refuse("--group-column has no effect without --per-group")


def read_samples(args: argparse.Namespace, network: PretrainNetwork, description: Description) -> Samples:
    """Read and encode the images, with their groups and further columns."""
    path, names = Path(args.images), args.subgroup_columns or ()
    reading = args.path_column, args.id_column, settings.new_intensity(args.intensity)
    ids, images = read_images(args.images, description, *reading)
    groups = None if args.per_group is None else read_groups(path, args.group_column)
    columns = read_columns(path, "--subgroup-columns", names) if names else {}
    rows = list(range(len(ids)))
    if isinstance(images, FileImages):
        images = replace(images, remedy=PASS_SKIP)
    if args.on_bad_image == "skip" and isinstance(images, FileImages):
        bad = dict(find_bad_images(images))
        rows = [row for row in rows if row not in bad]
        for row, reason in bad.items():
            log.warning("left out image %s: %s", images.paths[row], reason)
        images = replace(images, paths=[images.paths[row] for row in rows])
        if not rows:
            raise ValueError(f"--images {args.images}: no image can be read; pass readable images")
    features, _ = encode(network, description, images, args.num_workers)
    return Samples(ids, rows, features, groups, columns)


def read_feature_samples(args: argparse.Namespace, head: FrozenHead) -> Samples:
    """Read the features, with their groups and further columns."""
    file = features_for(head, Path(args.embeddings), labelled=False)
    groups = None
    if args.per_group is not None:
        groups = file.groups if args.group_column is None else file.column(args.group_column)
        if groups is None:
            raise ValueError(f"--per-group needs groups, --embeddings {file.path} has no array groups; add it")
        check_groups(groups, f"--embeddings {file.path}")
    columns = {name: file.column(name) for name in args.subgroup_columns or ()}
    return Samples(file.ids, list(range(len(file.ids))), file.features, groups, columns)


def write_tables(args: argparse.Namespace, samples: Samples, head: FrozenHead, protocol: Protocol) -> None:
    """Decide samples and groups, and write their tables."""
    scores = np.full((len(samples.ids), len(head.class_names)), np.nan)
    scores[samples.rows] = head.scores(samples.features)
    decision = decide_samples(head, args.threshold, args.deploy_prevalence)
    further = {**({} if samples.groups is None else {"group": samples.groups}), **samples.columns}
    if wrong := [name for name, cells in further.items() if len(cells) != len(samples.ids)]:
        source = args.images or args.embeddings
        raise ValueError(
            f"{source}: {wrong[0]} has not one entry for each of the {counted(len(samples.ids), 'sample')}; add them"
        )
    table = decision.table("id", samples.ids, scores, further)
    tables = {args.output: table}
    for line in describe_subgroups(table, list(samples.columns), decision):
        log.info("%s", line)
    if samples.groups is not None:
        rule = decide_groups(head, args.threshold, args.deploy_prevalence, protocol)
        path = Path(args.output)
        name = "groups" if args.output == "-" else str(path.with_name(f"{path.stem}_groups{path.suffix}"))
        tables[name] = group_table(rule, samples.groups, scores, samples.columns, protocol)
    for number, (name, content) in enumerate(tables.items()):
        text = content.to_csv(index=False, lineterminator="\n")
        if args.output == "-":
            sys.stdout.write("\n" * bool(number) + text)
            continue
        write_text(Path(name), text)
        log.info("wrote %s to %s", counted(int((content["class"] != "").sum()), "prediction"), name)


def main() -> int:
    """Load, encode, classify, save."""
    # 1. parse
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    refuse_idle(parser, args)
    if args.output != "-":
        files.place(Path(args.output))
    start_logging(main=True)
    probes = None if args.probe is None else [args.probe]

    # 2. head
    if args.embeddings is not None:
        (head,) = heads_of_file(Path(args.head), probes)
    else:
        args.checkpoint = checkpoint_of(args.checkpoint)
        network, description, state = load_network(args.checkpoint, runtime.pick_device(args.device))
        (head,) = heads_of_checkpoint(args.checkpoint, args.head, probes, network, description, state)
    classes = len(head.class_names)
    check_prevalences([args.deploy_prevalence] if args.deploy_prevalence else None, classes)
    check_subgroups(args.subgroup_columns or (), classes)
    log.info("head: %s of %s; positive class: %s", head.probe, head.source, head.class_names[head.positive_class])
    fitted = "prior" if head.calibrator is not None and head.calibrator.kind == "prior" else "auto"
    protocol = Protocol(head.positive_class, (), (), 0, 0, fitted, args.per_group, args.group_label)

    # 3. samples
    samples = (
        read_feature_samples(args, head) if args.embeddings is not None else read_samples(args, network, description)
    )

    # 4. predictions
    write_tables(args, samples, head, protocol)
    return 0


if __name__ == "__main__":
    runtime.run(main)
