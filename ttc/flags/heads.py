"""Contradictions between the flags of linear_eval.py."""

from __future__ import annotations

from collections.abc import Mapping

from ttc.flags.parser import Namespace, Parser
from ttc.models.layers import OUTPUTS

FITTED = ("linear", "knn")
"""Heads that learn from samples; the others come with the checkpoint."""


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


def _refuse_on_folds(parser: Parser, args: Namespace) -> None:
    if args.probes or args.class_balance != "natural":
        parser.refuse("--folds learns from whole folds and tests every sample; leave out --probes and --class-balance")
    if idle := [head for head in args.head if head not in FITTED]:
        parser.refuse(f"--head {idle[0]} has nothing to learn from folds; leave out --folds")


def _refuse_on_features(parser: Parser, args: Namespace, sources: Mapping[str, str]) -> None:
    if idle := [head for head in args.head if head not in FITTED]:
        parser.refuse(f"--head {idle[0]} comes with a checkpoint; --embeddings takes {' and '.join(FITTED)}")
    if args.protocol == "paper":
        parser.refuse("--protocol paper trains on augmented views, which features do not have; leave it out")
    if sources["data_root"] != "default":
        parser.refuse("--data-root names images, which --embeddings does not use; leave it out")
    if layers := sorted(set(args.layers) - set(OUTPUTS)):
        parser.refuse(f"--layers {layers[0]} needs the network of a checkpoint; --embeddings has {', '.join(OUTPUTS)}")
