from __future__ import annotations

import pytest
import torch

from ttc.metrics.representation import representation_metrics
from ttc.metrics.tables import format_table


def table(labels, names, minority=1, **options):
    embeddings = torch.randn(2, len(labels), 6, generator=torch.Generator().manual_seed(0))
    metrics = representation_metrics(embeddings, torch.tensor(labels), **options)
    return format_table(metrics, names, minority), metrics


def test_values_stand_under_their_heads():
    lines, metrics = table([0] * 30 + [1] * 10, ["healthy", "fracture"])
    heads = next(line for line in lines if "macro" in line).split()
    assert heads == ["better", "healthy", "fracture*", "macro", "all"]
    row = next(line for line in lines if line.startswith("SAA")).split()
    values = [*metrics["SAA"]["per_class"], metrics["SAA"]["macro"], metrics["SAA"]["all"]]
    assert row == ["SAA", "%", "higher", *(f"{value:.2f}" for value in values)]
    titles = [line[:11].strip() for line in lines]
    assert titles.index("CAC cap %") == titles.index("CAC %") + 1
    assert titles.index("CAC / cap %") == titles.index("CAC %") + 2
    assert any("minority: fracture, 20 rows" in line for line in lines)


@pytest.mark.parametrize("classes", [1, 2, 5, 10])
def test_lines_are_narrow_and_complete(classes):
    names = [f"a class with a long name {label}" for label in range(classes)]
    lines, _ = table([label for label in range(classes) for _ in range(4)], names, minority=classes - 1)
    assert max(map(len, lines)) <= 100
    cells = sum(len(line[28:]) // 13 for line in lines if line.startswith("SAD"))
    assert cells == classes + 2


def test_undefined_values_and_missing_peu():
    lines, _ = table([0] * 20 + [1], ["many", "one"], peu_draws=0)
    assert "not defined" in next(line for line in lines if line.startswith("CAC %"))
    assert not any(line.startswith("PEU") for line in lines)


def test_wrong_number_of_names():
    with pytest.raises(ValueError, match="1 names, but the metrics have 2"):
        table([0, 0, 1, 1], ["only"], 0)
