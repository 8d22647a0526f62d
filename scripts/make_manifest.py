"""Write a manifest: recipes x methods x samplers x seeds x folds, one line per run.

python scripts/make_manifest.py --recipes plants-95 plants-99 --methods untrained supcon supmin:5 --output sweep.csv

`supmin:5` asks for seeds 0 to 4, `untrained` is an encoder without training. `--folds 5` repeats the whole experiment
with each fifth of the images, whole groups, as the test set; scripts/collect_results.py pools the predictions, so that
every image is tested once. scripts/run_manifest.sh runs a manifest on one machine, scripts/slurm/submit.sh on a
cluster, scripts/manifest_status.py tells how far it is.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ttc.batches.samplers import SAMPLERS
from ttc.flags.parser import Parser, whole
from ttc.losses import METHODS
from ttc.run import manifest, runtime
from ttc.run.checkpoint import write_text
from ttc.run.escape import counted
from ttc.run.manifest import RESULT_FILES, Line

RECIPES = "scripts/recipes"
UNTRAINED = "untrained"
UNTRAINED_FLAGS = ("--method", "simclr", "--epochs", "0")
"""The method only decides about the head, which an untrained encoder's probe does not use."""


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Write a manifest: recipes x methods x samplers x seeds x folds, one line per run.",
        "python scripts/make_manifest.py --recipes fashion-mix5-99 --methods supcon supmin --output sweep.csv",
    )
    add = parser.add_argument
    add(
        "--recipes",
        nargs="+",
        required=True,
        metavar="RECIPE",
        help=f"recipes: a name in {RECIPES}, or a file ending in .args, relative to the project",
    )
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD[:SEEDS]",
        help="values of pretrain.py's --method, and untrained; with a number of seeds of its own where you name one",
    )
    add("--samplers", nargs="+", choices=SAMPLERS, default=["shuffle"], help="values of --batch-sampler")
    add_repetitions(parser)
    add(
        "--method-flags",
        nargs="+",
        default=[],
        metavar="METHOD=FLAGS",
        help="further flags of pretrain.py for one method, such as kcl='--method-settings k=6'",
    )
    add(
        "--variants",
        nargs="+",
        default=[],
        metavar="NAME[:SEEDS]=FLAGS",
        help="further rows with all their flags, such as supcon-t0.2='--method supcon --temperature 0.2'",
    )
    add(
        "--recipe-flags",
        nargs="+",
        default=[],
        metavar="RECIPE:STEP=FLAGS",
        help="further flags of a step for one recipe, such as infarction:linear_eval='--probe-fraction 0.05'",
    )
    add(
        "--data-root",
        nargs="+",
        default=[],
        metavar="[RECIPE=]PATH",
        help="where the images lie: one folder for all recipes, or one per recipe",
    )
    add(
        "--steps",
        nargs="+",
        default=["pretrain", "linear_eval", "compute_metrics"],
        metavar="STEP[=FLAGS]",
        help=f"what is run, in this order, and with which flags beside the recipe's; of {', '.join(RESULT_FILES)}",
    )
    add("--skip", nargs="+", default=[], metavar="PATTERN", help="names of lines to leave out, with * and ?")
    add("--output", metavar="FILE", help="the manifest; the default is standard output")
    return parser


def add_repetitions(parser: Parser) -> None:
    """Add what every row is repeated over."""
    add = parser.add_argument
    add("--seeds", type=whole(1), default=3, metavar="N", help="seeds 0 to N-1; three show the noise, five are better")
    add(
        "--folds",
        type=whole(2),
        metavar="K",
        help="K lines for each seed, with --fold 1/K to K/K of pretrain.py; set it, for example 5, where a test set of "
        "a fifth holds too few rare images (or patients) to tell methods apart",
    )


def pairs(flag: str, texts: list[str], names: Iterable[str]) -> dict[str, str]:
    """Split NAME=TEXT words.

    Raises:
        ValueError: a name is not known.
    """
    texts_by_name = dict(text.partition("=")[::2] for text in texts)
    if unknown := [name for name in texts_by_name if name not in names]:
        raise ValueError(f"{flag} {unknown[0]} is not known here; use {', '.join(names)}")
    return texts_by_name


def recipe_file(name: str) -> str:
    """Return a recipe's path relative to the project.

    Raises:
        ValueError: there is no such file.
    """
    path = name if name.endswith(".args") else f"{RECIPES}/{name}.args"
    if not (ROOT / path).is_file():
        raise ValueError(f"--recipes {name}: {path} is missing; name a file of {RECIPES} or a path ending in .args")
    return path


def seeds_of(flag: str, kind: str, text: str, default: int) -> tuple[str, int]:
    """Split NAME[:SEEDS]; kind says what the name is.

    Raises:
        ValueError: the number of seeds is not a number of at least 1.
    """
    name, colon, number = text.partition(":")
    if colon and (not number.isdecimal() or not int(number)):
        raise ValueError(f"{flag} {text}: write {kind}:SEEDS with a number of at least 1")
    return name, int(number) if colon else default


@dataclass(frozen=True)
class Row:
    """What is repeated over seeds: its name, the number of seeds, and the flags that a recipe gets."""

    name: str
    seeds: int
    words: tuple[str, ...]


def rows_of(args: argparse.Namespace) -> list[Row]:
    """Return samplers x methods, then the variants.

    Raises:
        ValueError: a method is not known, or a number of seeds is not one.
    """
    methods = dict(seeds_of("--methods", "METHOD", method, args.seeds) for method in args.methods)
    if unknown := [name for name in methods if name not in (*METHODS, UNTRAINED)]:
        raise ValueError(f"--methods {unknown[0]} is unknown; use {UNTRAINED}, {', '.join(METHODS)}")
    flags_of_method = pairs("--method-flags", args.method_flags, methods)
    rows = []
    for sampler, (method, seeds) in product(args.samplers, methods.items()):
        if method != UNTRAINED:
            batches = () if sampler == "shuffle" else ("--batch-sampler", sampler)
            name = f"{method}-{sampler}" if batches else method
            words = ("--method", method, *batches, *shlex.split(flags_of_method.get(method, "")))
        elif sampler == args.samplers[0]:
            name, words = method, (*UNTRAINED_FLAGS, *shlex.split(flags_of_method.get(method, "")))
        else:
            continue
        rows.append(Row(name, seeds, words))
    for text in args.variants:
        name, _, flags = text.partition("=")
        rows.append(Row(*seeds_of("--variants", "NAME", name, args.seeds), tuple(shlex.split(flags))))
    if not rows:
        raise ValueError("--methods and --variants name no row; give methods, variants or both")
    return rows


def folds_of(folds: int | None) -> list[tuple[str, ...]]:
    """Return the words of each fold; one without words where there are no folds."""
    return [()] if folds is None else [("--fold", f"{fold}/{folds}") for fold in range(1, folds + 1)]


def cross(args: argparse.Namespace) -> list[Line]:
    """Return a line for every recipe, row, seed and fold.

    Raises:
        ValueError: a name is not known, or the steps do not begin with pretrain.
    """
    recipes = {Path(name).stem: recipe_file(name) for name in args.recipes}
    steps = {step: tuple(shlex.split(text)) for step, text in pairs("--steps", args.steps, RESULT_FILES).items()}
    if next(iter(steps)) != "pretrain":
        raise ValueError(f"--steps {args.steps[0]}: the first step is pretrain; put it first")
    places = [f"{recipe}:{step}" for recipe, step in product(recipes, steps)]
    more = {place: shlex.split(text) for place, text in pairs("--recipe-flags", args.recipe_flags, places).items()}
    roots = dict.fromkeys(recipes, *[root for root in args.data_root if "=" not in root][-1:])
    roots |= pairs("--data-root", [root for root in args.data_root if "=" in root], recipes)
    lines = []
    for (recipe, path), row in product(recipes.items(), rows_of(args)):
        place = ("--data-root", roots[recipe]) if roots[recipe] else ()
        steps_of_recipe = {step: (*words, *more.get(f"{recipe}:{step}", ())) for step, words in steps.items()}
        for seed, fold in product(range(row.seeds), folds_of(args.folds)):
            words = (f"@{path}", *place, "--seed", str(seed), *fold, *row.words)
            run = f"{row.name}-seed{seed}" + "".join(f"-fold{part.replace('/', 'of')}" for part in fold[1:])
            name, folder = (f"{recipe}-{run}", f"{recipe}/{run}") if len(recipes) > 1 else (run, run)
            lines.append(Line(name, folder, {**steps_of_recipe, "pretrain": (*words, *steps_of_recipe["pretrain"])}))
    return lines


def main() -> int:
    """Cross, leave out, write."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    lines = [line for line in cross(args) if not any(fnmatchcase(line.name, pattern) for pattern in args.skip)]
    if not lines:
        raise ValueError(f"--skip {' '.join(args.skip)} leaves no line; take a pattern out")
    text = manifest.write_manifest(lines, f"python scripts/make_manifest.py {shlex.join(sys.argv[1:])}")
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(Path(args.output), text)
        sys.stderr.write(f"{counted(len(lines), 'line')} in {args.output}\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
