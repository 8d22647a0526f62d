from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from ttc.evaluation.probe import summarise
from ttc.metrics.clinical import clinical_metrics
from ttc.metrics.representation import representation_metrics
from ttc.results.clinic.tables import format_external, site_rows
from ttc.results.floor.words import row_title
from ttc.results.metric_tables import format_clinical, format_probes, format_table


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


def probe_results(validation, groups=("a", "b", "c")):
    generator = np.random.default_rng(0)
    labels = (np.arange(60) % 4 == 0).astype(int)
    scores = np.clip(generator.normal(0.3 + 0.3 * labels, 0.2), 0.001, 0.999)
    probabilities = np.stack([1 - scores, scores], axis=1)
    found = clinical_metrics(
        labels,
        probabilities,
        validation=(labels, probabilities) if validation else None,
        calibrated=probabilities if validation else None,
        groups=[groups[number % len(groups)] for number in range(60)],
        deploy_prevalence=[0.01],
        bootstrap=20,
    )
    return {"knn projection": {"classifier": {"train_samples": 99999, **summarise([found, found])}}}, found


def test_probes_stand_under_their_heads():
    results, found = probe_results(validation=True)
    lines = format_probes(results, "fracture") + format_clinical(results, [0.01])
    assert max(map(len, lines)) <= 100
    heads, row = lines[1].split(), lines[2]
    assert heads == ["layer", "probe", "train", "bal.", "acc.", "AUROC", "AUPRC", "F1"]
    assert row.startswith("knn projection classifier")
    auroc = found["auroc"]
    shown = f"{100 * auroc['value']:.1f} [{100 * auroc['low']:.0f},{100 * auroc['high']:.0f}]"
    assert row[49:66].strip() == f"{shown}~"
    assert lines[1][49:66].strip() == "AUROC"
    youden = next(number for number, line in enumerate(lines) if "Youden" in line)
    sensitivity = found["operating_points"]["youden"]["sensitivity"]["value"]
    assert lines[youden + 2][32:49].strip().startswith(f"{100 * sensitivity:.1f} [")
    assert any("where 1 % are positive" in line for line in lines)
    assert not any(line.startswith(("a  ", "b  ")) for line in lines)
    assert "3 groups with fewer than 20 images of a class; median [quartiles] %:" in lines
    assert "~ intervals rest on 15 positives of 3 groups: rough" in lines
    heads = next(line for line in lines if line.split() == ["Brier", "log", "loss", "ECE", "intercept", "slope"])
    before, after = lines[lines.index(heads) + 1 :][:2]
    slope = found["calibration"]["after"]["slope"]
    assert after.split()[3:4] == ["probability"]
    assert before.split()[4:] == after.split()[4:]
    assert after.endswith(f" {slope['value']:.2f} [{slope['low']:.1f},{slope['high']:.1f}]~")
    assert after[: heads.index("ECE") + 3].split()[-1] == f"{found['calibration']['after']['ece']['value']:.3f}"


def test_undefined_cells_and_many_groups():
    results, _ = probe_results(validation=False, groups=[f"patient with a long name, number {n}" for n in range(30)])
    lines = format_probes(results, "fracture") + format_clinical(results, [])
    assert max(map(len, lines)) <= 100
    youden = next(number for number, line in enumerate(lines) if "Youden" in line)
    assert lines[youden + 2].split()[4:] == ["-"] * 4
    assert lines[-2] == "30 groups with fewer than 20 images of a class; median [quartiles] %:"
    assert lines[-1].startswith("  accuracy ")


def test_a_table_by_group_is_for_sites():
    rows = [
        {"group": name, "n": n, "positives": positives, "accuracy": 0.01 * n, "sensitivity": None, "specificity": 0.5}
        for name, n, positives in (("site", 60, 20), ("few", 60, 19), ("all", 60, 41), ("tiny", 4, 2), ("one", 8, 0))
    ]
    sites, spread = site_rows(rows)
    assert [row["group"] for row in sites] == ["site"]
    assert spread == [
        "4 groups with fewer than 20 images of a class; median [quartiles] %:",
        "  accuracy 34 [7, 60], specificity 50 [50, 50]",
    ]
    assert site_rows(rows[:1])[1] == []


def test_the_mark_is_where_positives_are_few_and_an_interval_rests_on_them():
    results, found = probe_results(validation=True, groups=[f"patient {n}" for n in range(30)])
    lines = format_probes(results, "fracture") + format_clinical(results, [0.01])
    assert found["intervals"]["rests_on"] == "15 positives of 15 groups: rough"
    rows = [line[32:] for line in lines if line.startswith("knn projection classifier")]
    marked = [re.findall(r"\](~?)", row) for row in rows]
    # balanced accuracy, AUROC, AUPRC, F1; accuracy, MCC, sens@90, spec@90; sensitivity, specificity, PPV, NPV.
    assert marked[:3] == [["~"] * 4, ["", "~", "~", "~"], ["~", "", "", ""]]
    metrics = results["knn projection"]["classifier"]
    for words, marks in (("40 positives", [""] * 4), ("5 negatives: rough", ["", "~", "", ""])):
        metrics["intervals"]["rests_on"] = words
        lines = format_clinical(results, [])
        assert re.findall(r"\](~?)", lines[2]) == marks
        assert sum("rests on" in line or "rest on" in line for line in format_probes(results, "fracture")) == 1


def test_external_tables_mark_the_rough_side_and_its_difference():
    def part(value, words):
        estimate = {"value": value, "low": 0.0, "high": 1.0}
        point = {"youden": {"sensitivity": estimate, "specificity": estimate}}
        patients = {"auroc": estimate, "intervals": {"rests_on": "3 positives: rough"}, "operating_points": {}}
        row = {"value": "f", "n": 9, "positives": 2, "intervals": {"rests_on": "2 positives: rough"}}
        row |= {"auroc": estimate, "sensitivity": estimate, "specificity": estimate}
        return {
            "n": 99, "auroc": estimate, "operating_points": point, "intervals": {"rests_on": words}, "calibration": {},
            "per_group": patients,
            "details": {"subgroups": {"sex": {"rows": [row], "gaps": {}}}},
        }  # fmt: skip

    few, many = "11 positives of 9 groups: rough", "60 positives"
    fact = {"source": "heads.pt", "probabilities_hold_at": None}
    gap = {"auroc": {"value": 0.1, "low": -1.0, "high": 1.0}}
    probes = {"external": {"all": part(0.9, many)}, "internal": {"all": part(0.8, few)}, "difference": {"all": gap}}
    lines = format_external({"probes": probes, "heads": {"all": fact}, "positive_class": 1})
    assert max(map(len, lines)) <= 100
    first = {line.split(" %")[0].strip(): re.findall(r"\](~?)", line) for line in reversed(lines) if "%" in line}
    assert first["AUROC"] == ["~", "", "~"], "internal, external, difference"
    assert first["sensitivity"] == ["~", ""]
    assert first["specificity"] == ["", ""]
    assert "external intervals rest on 60 positives" in lines
    assert "~ internal intervals rest on 11 positives of 9 groups: rough" in lines
    assert lines.count("~ external intervals rest on 3 positives: rough") == 1
    assert "~ intervals rest on f: 2 positives: rough" in lines
    assert re.findall(r"\](~?)", next(line for line in lines if line.startswith("f  "))) == ["~", "~", ""]


def test_external_tables_name_a_threshold_of_two_classes_only():
    def titles(counts):
        estimate = {"value": 0.5, "low": None, "high": None}
        made = {"intervals": {"rests_on": "60 positives"}, "calibration": {}, "details": {}}
        part = {"n": sum(counts), "class_counts": counts, "balanced_accuracy": estimate, **made}
        fact = {"source": "--scores", "probabilities_hold_at": None}
        result = {"probes": {"external": {"all": part}}, "heads": {"all": fact}, "positive_class": 1}
        return [line[:22].strip() for line in format_external(result)]

    assert {"positive %", "bal. acc. % (at 0.5)"} <= set(titles([30, 10]))
    assert not {"positive %", "bal. acc. % (at 0.5)"} & set(titles([30, 10, 5]))
    assert "balanced accuracy %" in titles([30, 10, 5])


def test_a_repeated_layer_is_shown_once_and_the_sizes_are_named():
    results, _ = probe_results(validation=True)
    summary = results["knn projection"]
    lines = format_probes({"encoder": summary, "projection": summary}, "fracture")
    assert not any(line.startswith("projection") for line in lines)
    assert "train: images that a head learned from; test: 60 images, 15 positive" in lines


def test_titles_of_any_head_are_of_one_width():
    titles = {
        ("encoder", "minority", True): "encoder        minority <",
        ("logit-adjusted encoder", "all", False): "logit-adjusted encoder all",
        ("logit-adjusted projection", "all", True): "logit-adjusted pro.. all <",
    }
    for (section, probe, marked), text in titles.items():
        assert row_title(section, probe, marked=marked) == f"{text:<26}"
