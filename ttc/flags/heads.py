"""What is evaluated beside single images, and contradictions between the flags of linear_eval.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ttc.datasets import Dataset
from ttc.datasets.other import columns_by_row
from ttc.evaluation.decoupled import NATURAL_HEADS
from ttc.evaluation.elsewhere.measure import Protocol, check_subgroups
from ttc.evaluation.embeddings import read_features
from ttc.evaluation.split_report import scored_rows
from ttc.flags.parser import Given, Namespace, Parser
from ttc.metrics.clinic.per_group import LABELS, POOLS
from ttc.models.description import Description
from ttc.models.layers import OUTPUTS
from ttc.run import checkpoint
from ttc.run.folder import shorten
from ttc.run.roles import Role

log = logging.getLogger("ttc")

FITTED = ("linear", "knn", *NATURAL_HEADS)
"""Heads that learn from samples; the others come with the checkpoint."""


def add_tested(parser: Parser) -> None:
    """Add the heads that scripts/evaluate.py tests, or features and scores in their place."""
    add = parser.add_argument_group("what is tested").add_argument
    add(
        "--checkpoint",
        role=Role.WHERE,
        nargs="+",
        metavar="RUN|FILE",
        help="run folder, whose best.pt (fine-tuned) or last.pt is used, or a checkpoint; name several to compare them "
        "in one table",
    )
    add(
        "--head",
        role=Role.RESULT,
        nargs="+",
        metavar="FILE|own",
        help="heads of linear_eval.py, or own for the classifier in the checkpoint; set it if they are not in "
        "RUN/linear_eval/heads.pt; one for all checkpoints, or one each",
    )
    add(
        "--probe",
        role=Role.RUN,
        nargs="+",
        metavar="NAME",
        help="which of the heads; name several to compare them; the default is the first of all, fraction and minority",
    )
    add(
        "--embeddings",
        role=Role.WHERE,
        metavar="FILE.npz",
        help="features [N, F] and labels [N] of the other data; set it for heads on features that were made elsewhere",
    )
    add(
        "--scores",
        role=Role.WHERE,
        metavar="FILE.csv",
        help="table with id, label (0 or 1), score and perhaps group; set it for scores of any other model",
    )


def add_groups(parser: Parser) -> None:
    """Add how samples of a patient count, and in which parts a split is measured."""
    add = parser.add_argument_group("patients and subgroups").add_argument
    add(
        "--per-group",
        role=Role.RESULT,
        choices=POOLS,
        help="evaluate one score per group (patient, breast, camera event) too, the mean or the largest of its images; "
        "set it when decisions are made about groups",
    )
    add(
        "--group-label",
        role=Role.RESULT,
        choices=LABELS,
        default="any",
        before="any",
        help="when a group is positive: if any of its images is, or if all are; use all for findings that every image "
        "shows",
    )
    add(
        "--subgroup-columns",
        role=Role.RESULT,
        nargs="+",
        metavar="NAME",
        help="columns of the table, such as sex or site, in whose parts sensitivity, specificity, AUROC and "
        "calibration are measured; set it to see whom the model serves worse",
    )


def refuse_idle_heads(parser: Parser, args: Namespace, sources: Mapping[str, str]) -> None:
    """End with exit code 2 unless there is one source, and where a flag would have no effect on folds or features.

    Args:
        parser: of linear_eval.py.
        args: its values.
        sources: where each came from.
    """
    if args.folds is not None:
        _refuse_on_folds(parser, args)
    if (args.checkpoint is None) == (args.embeddings is None):
        parser.refuse("give either --checkpoint or --embeddings")
    if args.embeddings is not None:
        _refuse_on_features(parser, args, sources)
    if "knn" not in args.head and sources["neighbours"] != "default":
        parser.refuse("--neighbours has no effect without --head knn; add it, or leave --neighbours out")


def _refuse_on_folds(parser: Parser, args: Namespace) -> None:
    if args.probes or args.class_balance != "natural":
        parser.refuse("--folds learns from whole folds and tests every sample; leave out --probes and --class-balance")
    if idle := [head for head in args.head if head not in FITTED]:
        parser.refuse(f"--head {idle[0]} has nothing to learn from folds; leave out --folds")


def _refuse_on_features(parser: Parser, args: Namespace, sources: Mapping[str, str]) -> None:
    if idle := [head for head in args.head if head not in FITTED]:
        parser.refuse(f"--head {idle[0]} comes with a checkpoint; --embeddings takes {', '.join(FITTED)}")
    if args.protocol == "paper":
        parser.refuse("--protocol paper trains on augmented views, which features do not have; leave it out")
    if sources["data_root"] != "default":
        parser.refuse("--data-root names images, which --embeddings does not use; leave it out")
    if layers := sorted(set(args.layers) - set(OUTPUTS)):
        parser.refuse(f"--layers {layers[0]} needs the network of a checkpoint; --embeddings has {', '.join(OUTPUTS)}")


def name_positive_class(given: Given, args: Namespace, class_names: Callable[[], Sequence[str]]) -> None:
    """Put the label in the place of what --positive-class says, before runs are compared: they store the label.

    Args:
        given: the values, changed in place.
        args: the same.
        class_names: reads the names of the classes, in label order; called only where the flag is given.

    Raises:
        ValueError: there is no such class.
    """
    if args.positive_class is None:
        return
    word, names = args.positive_class, class_names()
    label = args.positive_class = given.values["positive_class"] = label_of(word, names)
    if isinstance(word, int) and label != word < len(names):
        log.warning("--positive-class %d is the name of class %d, which is taken, not class %d", word, label, word)


def label_of(word: int | str, class_names: Sequence[str]) -> int:
    """Return the label of a class by its name, else (ignoring case) by its name, else by its number.

    Raises:
        ValueError: there is no such class.
    """
    text, folded = str(word), [name.casefold() for name in class_names]
    if text in class_names:
        return list(class_names).index(text)
    if folded.count(text.casefold()) == 1:
        return folded.index(text.casefold())
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    classes = shorten((f"{label} = {name}" for label, name in enumerate(class_names)), 12)
    raise ValueError(f"--positive-class {text} is no class; name one of {classes}")


def names_of_checkpoint(path: str) -> list[str]:
    """Return the names of the classes of a run.

    Raises:
        ValueError: the file is no checkpoint.
    """
    state = checkpoint.load(Path(path), checkpoint.PRETRAIN, checkpoint.FINETUNE)
    with checkpoint.contents(Path(path)):
        return Description.from_dict(state["description"]).class_names


def check_natural_heads(args: Namespace, classes: int) -> None:
    """Refuse heads of the natural class shares without the probe that has them; say of one that it changes nothing.

    Args:
        args: with the probes that are fitted; none for folds, which keep the shares.
        classes: number of classes.

    Raises:
        ValueError: the probe is missing.
    """
    for head in args.head:
        if head in NATURAL_HEADS and args.folds is None and "all" not in args.probes:
            raise ValueError(f"--head {head} learns from all training images; add all to --probes")
    if "tau-norm" in args.head and classes == 2:
        log.info("--head tau-norm changes no rank or decision of two classes: their weight vectors have one norm")


def protocol_of(args: Namespace, positive_class: int) -> Protocol:
    """Return how the flags want predictions to be measured."""
    return Protocol(
        positive_class,
        args.deploy_prevalence or (),
        args.decision_thresholds,
        args.bootstrap,
        args.seed,
        args.calibration,
        args.per_group,
        args.group_label,
    )


def subgroup_cells(args: Namespace, dataset: Dataset) -> dict[str, list[str]]:
    """Return the columns of --subgroup-columns by row of the data; none where it is not given.

    Raises:
        ValueError: the data have no such column, or --per-group or --subgroup-columns does not fit them.
    """
    classes = len(dataset.class_names)
    if args.per_group is not None:
        rows = torch.cat([dataset.indices("val"), dataset.indices("test")])
        scored_rows(dataset, rows, np.zeros((len(rows), classes))).per_group(args.per_group, args.group_label, 1)
    if not args.subgroup_columns:
        return {}
    check_subgroups(args.subgroup_columns, classes)
    if vars(args).get("embeddings") is not None:
        file = read_features(Path(args.embeddings), "--embeddings")
        return {name: file.column(name) for name in args.subgroup_columns}
    return columns_by_row(dataset, args.subgroup_columns)
