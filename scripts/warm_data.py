"""What the fork server of a sweep imports last: it prepares the data sets that its scripts are going to use.

A small run spends an eighth of its time on them, in each of its three steps. Only images in memory are kept; what
cannot be prepared is left to the script, which tells why. A script takes it only if no file has changed since.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
from collections.abc import Iterable, Sequence

from scripts.warm import TRAININGS
from ttc.datasets import load_dataset
from ttc.datasets.registry import PUBLISHED
from ttc.datasets.residence import keep, kept_bytes
from ttc.flags.data_settings import dataset_settings

KEPT = {*PUBLISHED, "arrays"} - {"ukbb-cardiac"}
MOST_SETS, MOST_BYTES = 100, 2**30


def prepare(trainings: Iterable[Sequence[str]]) -> None:
    """Prepare the data sets of trainings, given their words; at most 100, and 1 GiB of images."""
    parser, prepared = importlib.import_module("pretrain").build_parser(), set()
    for words in trainings:
        # What a script refuses it refuses itself, with its log.
        with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stderr(io.StringIO()):
            settings = dataset_settings(parser.parse(list(words)).namespace())
            if settings.name in KEPT and settings not in prepared:
                prepared.add(settings)
                keep(settings, load_dataset)
        if len(prepared) >= MOST_SETS or kept_bytes() > MOST_BYTES:
            return


prepare(json.loads(os.environ.pop(TRAININGS, "[]")))
gc.collect()
gc.freeze()  # a collection in a fork would copy the memory of all that it looks at
