"""How often 95 % intervals hold the truth, and how often tests reject a true null.

python study/coverage.py --studies 2000 --output docs/coverage.md

Draws studies whose truth is known: normal scores of two classes with a given AUROC, of independent samples or of
patients with three images each that resemble each other (correlation 0.5). Writes the table of docs/coverage.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.evaluation.elsewhere.measure import at_path
from ttc.flags.parser import Parser, whole
from ttc.metrics.clinic.auroc import auroc, joined_limits
from ttc.metrics.clinic.proportions import clopper_pearson, proportion
from ttc.metrics.clinical import clinical_metrics
from ttc.metrics.comparison import compare_scores
from ttc.metrics.intervals import Floats
from ttc.run import runtime
from ttc.run.checkpoint import write_text

LEAST = 0.93
"""Share of studies that an interval has to hold the truth in; less is marked on the page."""

POSITIVES, AREAS, SHARES = (5, 10, 50), (0.5, 0.9, 0.99), (0.8, 0.95)
IMAGES, NEGATIVES = 3, 9
"""Images of a patient; negative samples or patients for each positive one."""

TOTALS, AREA, BENEFIT, DRAWS = (100, 500), 0.9, 0.1, 400
"""Of whole evaluations: samples or patients, AUROC, threshold of the net benefit, draws of the bootstrap."""

NUMBERS = {
    "auroc": "AUROC",
    "operating_points/half/sensitivity": "sensitivity",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    f"net_benefit/own/{BENEFIT:g}/model": "net benefit",
    "calibration/after/brier": "Brier score",
}
"""Path in the result -> what it is called. The calibration error has no interval."""

WHOLE = """\
What `ttc.metrics.clinical.clinical_metrics` says with {draws} draws, in {studies} studies a line, so that shares are
known to about {error:.1f} percentage points: right probabilities with AUROC {area:g}, decisions at 0.5, net benefit at
{benefit:g}. `10 of 100` counts samples, or patients with {images} images.

The bootstrap alone, in a trial of 150 studies a line with AUROC 0.9 and 0.99, held the truth in 65 to 92 % with 5 or 10
of 100 samples positive, and still in 80 % for the net benefit with 50. Its intervals are therefore joined with limits
that need no draws (`ttc/metrics/clinic/combined.py`): exact ones of the shares that balanced accuracy, F1 and net
benefit are made of, exact ones of a share for the AUPRC, t intervals of the logarithm for Brier score and log loss.
All the same, tables mark with ~ what rests on fewer than 20 positives, or patients with one. The calibration error has
no interval; MCC, and AUPRC and predictive values at another prevalence, have the bootstrap's alone.
"""
"""What the page says of whole evaluations."""

NOWHERE = {"low": np.inf, "high": np.inf}
"""Stands for an interval that is missing: it holds no truth."""

Row = tuple[str, str, str, str, float, float, float]
"""Number, truth, kind of samples, positives, share of studies whose interval holds the truth, mean and least width."""


def areas_of(positive_SP: Floats, negative_SN: Floats) -> Floats:
    """Return the AUROC [S] of studies without ties."""
    from scipy.stats import rankdata

    count = positive_SP.shape[1]
    ranks_SP = rankdata(np.concatenate([positive_SP, negative_SN], axis=1), axis=1)[:, :count]
    return np.asarray((ranks_SP.sum(axis=1) - count * (count + 1) / 2) / (count * negative_SN.shape[1]))


def row(number: str, truth: float, kind: str, positives: int | str, low: Floats, high: Floats) -> Row:
    """Return a line of the table from the limits [S] of all studies."""
    held, widths = (low <= truth) & (truth <= high), high - low
    return number, f"{truth:.3g}", kind, str(positives), float(held.mean()), float(widths.mean()), float(widths.min())


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


def evaluations(studies: int, generator: np.random.Generator) -> Iterator[Row]:
    """Yield the lines of whole evaluations: what `clinical_metrics` says of calibrated probabilities with AUROC 0.9.

    `positives` is then "10 of 100": samples, or patients with several images.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    gap = float(np.sqrt(2.0) * norm.ppf(AREA))
    for images, kind in ((1, "independent"), (IMAGES, "grouped")):
        for total in TOTALS:
            for positives in POSITIVES:
                prevalence = positives / total
                owners = np.repeat(np.arange(total), images)
                labels = (owners < positives).astype(np.int64)
                groups = [str(owner) for owner in owners] if images > 1 else None
                found = []
                for study in range(studies):
                    shared = generator.normal(0.0, np.sqrt(0.5), total)[owners]
                    noise = shared + generator.normal(0.0, np.sqrt(0.5), len(owners))
                    if images == 1:
                        noise = generator.normal(0.0, 1.0, total)
                    chances = expit(gap * (gap * labels + noise) - gap**2 / 2 + logit(prevalence))
                    both = np.stack([1.0 - chances, chances], axis=1)
                    found.append(
                        clinical_metrics(
                            labels, both, calibrated=both, groups=groups, decision_thresholds=[BENEFIT],
                            bootstrap=DRAWS, seed=study,
                        )
                    )  # fmt: skip
                for path, truth in truths(gap, prevalence).items():
                    estimates = [at_path(each, path) for each in found]
                    limits = ends([each if each and each["low"] is not None else NOWHERE for each in estimates])
                    yield row(NUMBERS[path], truth, kind, f"{positives} of {total}", *limits)


def truths(gap: float, prevalence: float) -> dict[str, float]:
    """Return what the numbers are in the population: scores N(0, 1) and N(gap, 1), probabilities that are right.

    Integrals are sums over a fine grid.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    x, step = np.linspace(-9.0, 12.0, 200_001, retstep=True)
    positive, negative = norm.pdf(x - gap), norm.pdf(x)
    called, alarms = prevalence * norm.sf(x - gap), (1.0 - prevalence) * norm.sf(x)
    chances = expit(gap * x - gap**2 / 2 + logit(prevalence))

    def shares(threshold: float) -> tuple[float, float]:
        limit = (logit(threshold) - logit(prevalence) + gap**2 / 2) / gap
        return float(norm.sf(limit - gap)), float(norm.sf(limit))

    (found, false), (treated, harmed) = shares(0.5), shares(BENEFIT)
    errors = prevalence * positive * (1.0 - chances) ** 2 + (1.0 - prevalence) * negative * chances**2
    return {
        "auroc": AREA,
        "operating_points/half/sensitivity": found,
        "auprc": float((positive * called / (called + alarms)).sum() * step),
        "balanced_accuracy": (found + 1.0 - false) / 2.0,
        "f1": 2.0 * prevalence * found / (prevalence * found + prevalence + (1.0 - prevalence) * false),
        f"net_benefit/own/{BENEFIT:g}/model": prevalence * treated
        - (1.0 - prevalence) * harmed * BENEFIT / (1.0 - BENEFIT),
        "calibration/after/brier": float(errors.sum() * step),
    }


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
    """Return all lines of single numbers, and the rejections of a true null."""
    generator = np.random.default_rng(0)
    rows = [*independent(studies, generator), *grouped(studies, generator)]
    return rows, rejections(studies, 400)


def lines_of(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a table in Markdown; below LEAST the share is followed by a mark."""
    yield "| number | truth | samples | positives | covered, % | mean width | least width |"
    yield "|---|--:|---|--:|--:|--:|--:|"
    for number, truth, kind, positives, held, width, least in rows:
        mark = " ~" if held < LEAST else ""
        yield f"| {number} | {truth} | {kind} | {positives} | {100 * held:.1f}{mark} | {width:.3f} | {least:.3f} |"


def page(studies: int, whole_studies: int) -> str:
    """Return the page of documentation."""
    rows, rejected = table(studies)
    whole_rows = list(evaluations(whole_studies, np.random.default_rng(2)))
    few = sorted(
        {f"{number}, {kind}, {positives}" for number, _, kind, positives, held, *_ in whole_rows if held < LEAST}
    )
    lines = [
        "# Do intervals cover?",
        "",
        "How often nominal 95 % intervals hold the truth in simulated studies, and how often the exchange test of",
        "`scripts/compare.py` finds a difference (p < 0.05) between two equally good models. Written by",
        "",
        f"    python study/coverage.py --studies {studies} --whole-studies {whole_studies} --output docs/coverage.md",
        "",
        f"`positives` counts samples, or patients with {IMAGES} images of correlation 0.5; there are {NEGATIVES} times",
        "as many negative ones. With 2,000 studies the shares are known to about one percentage point.",
        "",
        *lines_of(rows),
        "",
        "| a true null, 10 of 100 positive | rejected, % |",
        "|---|--:|",
        *(f"| {name.replace('_', ' ')}, exchange test | {100 * share:.1f} |" for name, share in rejected.items()),
        "",
        "## Whole evaluations",
        "",
        *WHOLE.format(
            draws=DRAWS,
            studies=whole_studies,
            area=AREA,
            benefit=BENEFIT,
            images=IMAGES,
            error=100 * (0.95 * 0.05 / whole_studies) ** 0.5,
        ).split("\n"),
        *lines_of(whole_rows),
        "",
        f"Below {100 * LEAST:g} % (~ in the table; with 50 positives by the chance of few studies): {'; '.join(few)}."
        if few
        else f"No line is below {100 * LEAST:g} %.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Simulate, write."""
    parser = Parser("Measure how often intervals cover.", "python study/coverage.py --studies 2000")
    parser.add_argument("--studies", type=whole(10), default=500, metavar="S", help="simulated studies of each line")
    parser.add_argument("--output", metavar="FILE", help="page to write; standard output if not given")
    parser.add_argument(
        "--whole-studies", type=whole(10), default=100, metavar="S", help="simulated whole evaluations of each line"
    )
    args = parser.parse(sys.argv[1:]).namespace()
    text = page(args.studies, args.whole_studies)
    if args.output:
        write_text(Path(args.output), text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    runtime.run(main)
