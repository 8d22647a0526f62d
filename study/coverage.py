"""How often 95 % intervals hold the truth, and how often tests reject a true null.

python study/coverage.py --studies 2000 --output docs/coverage.md

Draws studies whose truth is known: normal scores of two classes with a given AUROC, of independent samples or of
patients with three images each that resemble each other (correlation 0.5). Writes the table of docs/coverage.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.flags.parser import Parser, whole
from ttc.metrics.clinic.auroc import auroc, joined_limits
from ttc.metrics.clinic.proportions import clopper_pearson, proportion
from ttc.metrics.comparison import compare_scores
from ttc.metrics.intervals import Floats
from ttc.run import runtime
from ttc.run.checkpoint import write_text

POSITIVES, AREAS, SHARES = (5, 10, 50), (0.5, 0.9, 0.99), (0.8, 0.95)
IMAGES, NEGATIVES = 3, 9
"""Images of a patient; negative samples or patients for each positive one."""

Row = tuple[str, str, str, int, float, float, float]
"""Number, truth, kind of samples, positives, share of studies whose interval holds the truth, mean and least width."""


def areas_of(positive_SP: Floats, negative_SN: Floats) -> Floats:
    """Return the AUROC [S] of studies without ties."""
    from scipy.stats import rankdata

    count = positive_SP.shape[1]
    ranks_SP = rankdata(np.concatenate([positive_SP, negative_SN], axis=1), axis=1)[:, :count]
    return np.asarray((ranks_SP.sum(axis=1) - count * (count + 1) / 2) / (count * negative_SN.shape[1]))


def row(number: str, truth: float, kind: str, positives: int, low: Floats, high: Floats) -> Row:
    """Return a line of the table from the limits [S] of all studies."""
    held, widths = (low <= truth) & (truth <= high), high - low
    return number, f"{truth:g}", kind, positives, float(held.mean()), float(widths.mean()), float(widths.min())


def independent(studies: int, generator: np.random.Generator) -> Iterator[Row]:
    """Yield the lines of independent samples."""
    from scipy.stats import norm

    for positives in POSITIVES:
        for area in AREAS:
            gap = np.sqrt(2.0) * norm.ppf(area)
            scores = (
                generator.normal(gap, 1.0, (studies, positives)),
                generator.normal(0.0, 1.0, (studies, NEGATIVES * positives)),
            )
            limits = joined_limits(areas_of(*scores), positives, NEGATIVES * positives)
            yield row("AUROC", area, "independent", positives, *limits)
        for share in SHARES:
            limits = clopper_pearson(generator.binomial(positives, share, studies), positives)
            yield row("sensitivity", share, "independent", positives, *limits)


def grouped(studies: int, generator: np.random.Generator) -> Iterator[Row]:
    """Yield the lines of patients with several images."""
    from scipy.stats import norm

    for positives in POSITIVES:
        patients = (1 + NEGATIVES) * positives
        owners = np.repeat(np.arange(patients), IMAGES)
        ill = owners < positives

        def noise(of: int = patients, images: np.ndarray = owners) -> Floats:
            shared = generator.normal(0.0, np.sqrt(0.5), of)[images]
            return np.asarray(shared + generator.normal(0.0, np.sqrt(0.5), len(images)))

        for area in AREAS:
            gap = np.sqrt(2.0) * norm.ppf(area)
            found = [auroc(ill, gap * ill + noise(), owners) for _ in range(studies)]
            yield row("AUROC", area, "grouped", positives, *ends(found))
        own = owners[ill]
        for share in SHARES:
            found = [proportion(noise(positives, own) < norm.ppf(share), own) for _ in range(studies)]
            yield row("sensitivity", share, "grouped", positives, *ends(found))


def ends(estimates: list) -> tuple[Floats, Floats]:  # type: ignore[type-arg]  # of Estimate
    """Return the limits of many estimates."""
    return tuple(np.array([each[end] for each in estimates], dtype=np.float64) for end in ("low", "high"))  # type: ignore[return-value]


def rejections(studies: int, draws: int) -> dict[str, float]:
    """Return how often two equally good models with 10 of 100 positive samples differ with p < 0.05."""
    rejected = {"auroc": 0, "balanced_accuracy": 0}
    positive = np.arange(100) < 10
    for study in range(studies):
        generator = np.random.default_rng([1, study])
        shared = generator.normal(1.3 * positive, 0.7)
        scores = [shared + generator.normal(0.0, 0.7, 100) for _ in range(2)]
        found = compare_scores(positive, scores, [each > 0.6 for each in scores], bootstrap=draws, seed=study)
        for name in rejected:
            rejected[name] += found[name]["exchange"]["p"] < 0.05  # type: ignore[index]  # a mapping
    return {name: count / studies for name, count in rejected.items()}


def table(studies: int) -> tuple[list[Row], dict[str, float]]:
    """Return all lines, and the rejections of a true null."""
    generator = np.random.default_rng(0)
    rows = [*independent(studies, generator), *grouped(studies, generator)]
    return rows, rejections(studies, 400)


def page(studies: int) -> str:
    """Return the page of documentation."""
    rows, rejected = table(studies)
    lines = [
        "# Do intervals cover?",
        "",
        "How often nominal 95 % intervals hold the truth in simulated studies, and how often the exchange test of",
        "`scripts/compare.py` finds a difference (p < 0.05) between two equally good models. Written by",
        "",
        f"    python study/coverage.py --studies {studies} --output docs/coverage.md",
        "",
        f"`positives` counts samples, or patients with {IMAGES} images of correlation 0.5; there are {NEGATIVES} times",
        "as many negative ones. With 2,000 studies the shares are known to about one percentage point.",
        "",
        "| number | truth | samples | positives | covered, % | mean width | least width |",
        "|---|--:|---|--:|--:|--:|--:|",
        *(
            f"| {number} | {truth} | {kind} | {positives} | {100 * held:.1f} | {width:.3f} | {least:.3f} |"
            for number, truth, kind, positives, held, width, least in rows
        ),
        "",
        "| a true null, 10 of 100 positive | rejected, % |",
        "|---|--:|",
        *(f"| {name.replace('_', ' ')}, exchange test | {100 * share:.1f} |" for name, share in rejected.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Simulate, write."""
    parser = Parser("Measure how often intervals cover.", "python study/coverage.py --studies 2000")
    parser.add_argument("--studies", type=whole(10), default=500, metavar="S", help="simulated studies of each line")
    parser.add_argument("--output", metavar="FILE", help="page to write; standard output if not given")
    args = parser.parse(sys.argv[1:]).namespace()
    text = page(args.studies)
    if args.output:
        write_text(Path(args.output), text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    runtime.run(main)
