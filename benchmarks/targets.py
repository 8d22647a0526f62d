"""What the project wants to reach in time and memory, beside what the tables of docs/performance/ hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Row = Mapping[str, str]
Tables = Mapping[str, list[list[dict[str, str]]]]

PARTS = ("batch", "views", "network", "optimizer", "loss", "log")


@dataclass(frozen=True)
class Target:
    """One wanted figure.

    Attributes:
        table: benchmark.
        row: cells of the row.
        column: of the figure.
        bound: the figure with a sign before it.
    """

    table: str
    row: Row
    column: str
    bound: str

    def met(self, figure: str) -> bool:
        """Tell whether a figure is as wanted."""
        sign, wanted = self.bound.split()
        return float(figure) >= float(wanted) if sign == "≥" else float(figure) <= float(wanted)


def _losses(samples: int, reference: str, bounds: str, methods: tuple[str, ...] = ("supcon",)) -> list[Target]:
    return [
        Target("losses", {"samples": str(samples), "loss": method}, f"times_faster_than_{reference}", bounds)
        for method in methods
    ]


def _metrics(case: str, time: str, memory: str) -> list[Target]:
    row = {"case": case, "samples": "5000", "computation": "streamed"}
    return [
        Target("metrics", row, "times_faster_than_plain", time),
        Target("metrics", row, "times_less_memory_than_plain", memory),
    ]


def _bound(encoder: str, size: int, images_from: str, share: str) -> Target:
    row = {"encoder": encoder, "image_size": str(size), "images_from": images_from}
    return Target("bound", row, "percent_of_bound", share)


CASES = ("pairs", "peu")
LARGE = ("resnet50", "convnext_tiny", "timm/vit_small_patch16_224")
ON_CPU = (
    *_losses(256, "masked-published", "≥ 4.5"),
    *_losses(1024, "masked-published", "≥ 8"),
    *_losses(4096, "masked-published", "≥ 10"),
    *_losses(256, "masked-supcontrast", "≥ 2"),
    *_losses(1024, "masked-supcontrast", "≥ 3.5"),
    *_losses(4096, "masked-supcontrast", "≥ 6"),
    Target("losses", {"samples": "4096", "loss": "supcon"}, "times_less_memory_than_masked-published", "≥ 50"),
    Target("losses", {"samples": "32768", "loss": "supcon"}, "peak_mib", "≤ 256"),
    *_metrics("pairs", "≥ 8", "≥ 60"),
    *_metrics("peu", "≥ 3", "≥ 100"),
    Target("augment", {"image_size": "28", "pipeline": "per-sample"}, "ttc_is_times_faster", "≥ 8"),
    Target("augment", {"image_size": "28", "pipeline": "kornia"}, "ttc_is_times_faster", "≥ 2"),
    Target("training", {"image_size": "28", "step": "ttc bf16"}, "times_faster_than_per-sample", "≥ 2"),
    _bound("resnet18-w16", 28, "tensors", "≥ 90"),
    _bound("resnet18-w16", 28, "disk", "≥ 90"),
    _bound("resnet18-w16", 28, "jpeg", "≥ 80"),
    *(_bound(encoder, 224, "jpeg", "≥ 80") for encoder in LARGE),
    Target("sweep", {"case": "20 lines, 10 a turn"}, "percent_of_processor_time", "≤ 70"),
    Target("starts", {"case": "linear_eval.py"}, "percent_of_elapsed_time", "≤ 50"),
    Target("starts", {"case": "compute_metrics.py"}, "percent_of_elapsed_time", "≤ 50"),
)
ON_AVX2 = (
    *_losses(256, "masked-published", "≥ 4.5"),
    *_losses(1024, "masked-published", "≥ 8"),
    *_losses(4096, "masked-published", "≥ 10"),
    *_losses(256, "masked-supcontrast", "≥ 2"),
    *_losses(1024, "masked-supcontrast", "≥ 3.5"),
    *_losses(4096, "masked-supcontrast", "≥ 6"),
)
ON_GPU = (
    *(
        Target("losses", {"samples": samples, "loss": method}, "times_faster_than_masked-supcontrast", bound)
        for samples, bound in (("256", "≥ 1.5"), ("1024", "≥ 1.5"), ("4096", "≥ 3"))
        for method in ("simclr", "supcon", "supmin", "supproto")
    ),
    *(Target("metrics", {"case": case, "computation": "streamed"}, "times_faster_than_plain", "≥ 1") for case in CASES),
    *(_bound(encoder, 224, "disk", "≥ 95") for encoder in LARGE),
    *(_bound(encoder, 224, "jpeg", "≥ 80") for encoder in LARGE),
)


def kind_of(row: Row) -> str:
    """Tell what a row was measured on: "gpu", "cpu" or "avx2", a CPU that was kept from other instructions."""
    return "gpu" if "--device" in row["command"] else "avx2" if "=avx2" in row["command"] else "cpu"


def lines(targets: tuple[Target, ...], tables: Tables, kind: str) -> Iterator[str]:
    """Yield a table of wanted and measured figures, and what the profile of a missed one says.

    Args:
        targets: in the order of the table.
        tables: by benchmark; the first row that fits a target counts.
        kind: of `kind_of`.
    """
    missed: dict[str, list[str]] = {}
    yield from ("| case | quantity | wanted | measured | met | commit |", "|---|---|---|---|---|---|")
    for target in targets:
        rows = [row for table in tables.get(target.table, []) for row in table if target.row.items() <= row.items()]
        rows = [row for row in rows if kind_of(row) == kind and row.get(target.column)]
        case = f"{target.table}: {', '.join(target.row.values())}"
        quantity = target.column.replace("_", " ")
        if not rows:
            absent = "not measured: no GPU" if kind == "gpu" else "not measured"
            yield f"| {case} | {quantity} | {target.bound} | {absent} | - | - |"
            continue
        figure, commit = rows[0][target.column], rows[0]["commit"] or "-"
        met = target.met(figure)
        yield f"| {case} | {quantity} | {target.bound} | {figure} | {'yes' if met else 'no'} | {commit} |"
        if not met and (shares := profile(rows[0]) or _start(rows[0], tables)):
            missed.setdefault(f"* {case}: {shares}.", []).extend(_most(target, rows[0]))
    if missed:
        yield from ("", "Where the time goes in what is missed:", "")
        for reason, bounds in missed.items():
            most = f" With nothing but its matrix products it would be {' and '.join(bounds)}." if bounds else ""
            yield f"{reason}{most}"


def _most(target: Target, row: Row) -> Iterator[str]:
    """Yield how fast a loss would be without anything but its matrix products, which no other code makes faster."""
    products = re.findall(r"\b(?:addmm_?|mm|bmm) (\d+) %", row.get("largest_operators", ""))
    if products and target.column.startswith("times_faster"):
        bound = float(row[target.column]) / (sum(map(int, products)) / 100)
        yield f"{bound:.1f} {target.column.replace('_', ' ')}"


def _start(row: Row, tables: Tables) -> str:
    """Say what of a start cannot be saved, from the other rows of its table."""
    rows = {each["case"]: each for table in tables.get("starts", []) for each in table}
    case, least = row.get("case", ""), "import torch"
    if not {case, least} <= rows.keys():
        return ""
    seconds = {name: float(each["elapsed_seconds"]) for name, each in rows.items()}
    parts = [f"importing torch {100 * seconds[least] / seconds[case]:.0f} %"]
    if (bare := f"{case}, no figure") in rows:
        parts.append(f"the figure {100 * (1 - seconds[bare] / seconds[case]):.0f} %")
    return ", ".join(parts)


def profile(row: Row) -> str:
    """Say where the time goes, by parts of a step or by operators, for a row that tells."""
    for column in ("largest_operators", "largest_calls"):
        if shares := row.get(column):
            return shares.replace(";", ",")
    return ", ".join(f"{part} {row[f'{part}_percent']} %" for part in PARTS if f"{part}_percent" in row)
