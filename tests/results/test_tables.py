"""Tables: means, deviations and counts against a loop."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np

from ttc.results import ledger_lines
from ttc.results.table_parts.columns import COLUMNS
from ttc.results.tables import build_table


def test_the_table_equals_a_loop_over_the_lines() -> None:
    print("seed 0")
    generator = np.random.default_rng(0)
    lines, expected = [], {}
    for group, row, column in itertools.product("ba", ("z", "y", "x"), COLUMNS):
        values = [None if generator.random() < 0.3 else float(generator.normal()) for _ in range(4)]
        given = [column.scale * value for value in values if value is not None]
        expected[group, row, column.title] = (
            statistics.fmean(given) if given else None, statistics.stdev(given) if len(given) > 1 else None, len(given)
        )  # fmt: skip
        for seed, value in enumerate(values):
            common = {**dict.fromkeys(ledger_lines.COLUMNS, ""), "low": None, "high": None, "n": 1}
            lines.append(common | {"group": group, "run": row, "seed": seed, "metric": column.metric, "value": value})
    generator.shuffle(lines)
    table = build_table(ledger_lines.from_rows(lines))
    assert [group for group, _ in table.seeds.index] == sorted("aaabbb", key=lambda name: name != lines[0]["group"])
    assert table.seeds.tolist() == [4] * 6
    for (group, row, title), (mean, deviation, count) in expected.items():
        place = (group, row), title
        found = [None if math.isnan(frame.loc[place]) else frame.loc[place] for frame in (table.mean, table.deviation)]
        assert [*found, table.count.loc[place]] == [mean, deviation, count]
