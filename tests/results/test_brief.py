"""The brief table against means and deviations by hand."""

from __future__ import annotations

import statistics

import pandas

from ttc.results import brief

NAMES = ("encoder/minority/balanced_accuracy", "encoder/minority/auroc", "projection/SAA/majority",
         "projection/SAA/minority", "projection/mean_cosine/all")  # fmt: skip


def lines_of(rows: dict[str, list[tuple[float | None, ...]]]) -> pandas.DataFrame:
    return pandas.DataFrame(
        [
            {"group": "data", "run": run, "seed": seed, "fold": "", "metric": name, "value": value}
            for run, seeds in rows.items()
            for seed, values in enumerate(seeds)
            for name, value in zip(NAMES, values, strict=True)
        ]
    )


def test_rows_are_means_over_seeds_and_say_which_runs_collapsed() -> None:
    rows = {
        "b|old": [(0.5, 0.6, 10.0, 20.0, 0.995), (0.7, 0.8, 30.0, 60.0, 0.98)],
        "one": [(0.5, 0.5, 1.0, 2.0, 0.99)],
        "alive": [(0.9, 0.9, 80.0, 90.0, 0.1)],
        "dead": [(0.5, None, None, None, None)],
    }
    deviation = statistics.stdev([15.0, 45.0])
    assert brief.rows_of(lines_of(rows)) == [
        ["b|old", "60.0 ± 14.1", "70.0 ± 14.1", f"30.0 ± {deviation:.1f}", "1 of 2"],
        ["one", "50.0", "50.0", "1.5", "yes"],
        ["alive", "90.0", "90.0", "85.0", "no"],
        ["dead", "50.0", "-", "-", "-"],
    ]
    assert brief.as_markdown(lines_of(rows)).splitlines()[2].count("|") == 6  # the bar of the name is escaped
    assert max(map(len, brief.as_text(lines_of(rows)).splitlines())) <= 100
