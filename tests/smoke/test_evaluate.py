"""scripts/evaluate.py on other data, against a computation of its own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.processes import Result, run
from ttc.models.pretrained import load_network, load_pretrained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a probed run, and brighter images of it in another mixture."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(pretrained_run, folder / "run")
    words = ("--checkpoint", "run/checkpoints/last.pt", "--probes", "all", "--layers", "encoder", "--bootstrap", 20)
    words += ("--floor", "none")
    assert run("linear_eval", *words, folder=folder).code == 0
    dataset = load_pretrained(str(folder / "run" / "checkpoints" / "last.pt"), None, 0, CPU).dataset
    test = dataset.indices("test").numpy()
    labels = dataset.labels.numpy()[test]
    kept = np.concatenate([test[labels == 0][:240], test[labels == 1][:60]])
    pixels = dataset.images[torch.from_numpy(kept)][:, 0].numpy()
    names = np.where(dataset.labels.numpy()[kept] == 1, "high", "low")
    brighter = np.clip(pixels * 0.7 + 60, 0, 255).astype(np.uint8)
    group, sex = np.arange(300) // 3, np.where(np.arange(300) % 2, "f", "m")
    np.savez(folder / "other.npz", images=brighter, label=names, group=group, sex=sex, split=np.array(["x"] * 300))
    return folder


OTHER = ("--dataset", "arrays", "--data-root", "other.npz", "--class-map", "low=0,1,2,3,4", "high=5,6,7,8,9")
RUN = ("--checkpoint", "run/checkpoints/last.pt")


def evaluate(place: Path, *words: object) -> Result:
    return run("scripts.evaluate", *words, "--bootstrap", 20, folder=place)


@pytest.fixture(scope="module")
def grouped(place: Path) -> Result:
    """Return how the evaluation into folder "a" ended: by sample and by group."""
    return evaluate(place, *RUN, *OTHER, "--group-column", "group", "--per-group", "mean", "--output", "a")


def clopper_pearson(hits: float, n: float) -> tuple[float, float]:
    return beta.ppf(0.025, hits, n - hits + 1), beta.ppf(0.975, hits + 1, n - hits)


def test_the_numbers_of_an_independent_computation(place: Path, grouped: Result) -> None:
    result = grouped
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)["probes"]
    external, internal, gap = (found[section]["all"] for section in ("external", "internal", "difference"))

    heads = torch.load(place / "run" / "linear_eval" / "heads.pt", weights_only=True)
    head, calibrator = heads["heads"]["all"], heads["calibrators"]["all"]
    network, description, _ = load_network(str(place / "run" / "checkpoints" / "last.pt"), CPU)
    with np.load(place / "other.npz") as file:
        y, images = file["label"] == "high", torch.from_numpy(file["images"]).float()[:, None] / 255
    with torch.no_grad():
        features = network((images - description.preprocessing.mean[0]) / description.preprocessing.std[0])[0].double()
    odds = ((features - head["mean"]) / head["scale"] @ head["weight"][0] + head["bias"]).numpy()
    score = expit(odds)
    assert external["auroc"]["value"] == pytest.approx(roc_auc_score(y, score), abs=1e-10)
    assert external["auprc"]["value"] == pytest.approx(average_precision_score(y, score), abs=1e-10)

    kept = pandas.read_csv(place / "run" / "linear_eval" / "predictions.csv")
    val, test = (kept[kept["split"] == split] for split in ("val", "test"))
    limits = np.unique(val["score"])
    youden = [
        (val["score"] >= t)[val["label"] == 1].mean() - (val["score"] >= t)[val["label"] == 0].mean() for t in limits
    ]
    threshold = external["details"]["thresholds"]["youden"]
    best = (val["score"] >= threshold)[val["label"] == 1].mean() - (val["score"] >= threshold)[val["label"] == 0].mean()
    assert best == pytest.approx(max(youden), abs=1e-10)
    called = score >= threshold
    point = external["operating_points"]["youden"]
    assert point["sensitivity"]["value"] == pytest.approx(called[y].mean(), abs=1e-10)
    assert point["specificity"]["value"] == pytest.approx((~called[~y]).mean(), abs=1e-10)
    assert internal["auroc"]["value"] == pytest.approx(roc_auc_score(test["label"], test["score"]), abs=1e-10)

    natural = description.natural_counts[1] / sum(description.natural_counts)
    held = calibrator["prevalence"][1]
    p = expit(
        calibrator["offsets"][1] - calibrator["offsets"][0] + calibrator["slope"] * odds + logit(natural) - logit(held)
    )
    after = external["calibration"]["after"]
    assert after["brier"]["value"] == pytest.approx(((p - y) ** 2).mean(), abs=1e-10)
    shift = brentq(lambda a: expit(logit(p) + a).mean() - y.mean(), -20, 20, xtol=1e-14)
    mended = expit(logit(p) + shift)
    assert external["calibration"]["in_the_large"]["brier"]["value"] == pytest.approx(
        ((mended - y) ** 2).mean(), abs=1e-10
    )
    assert external["calibration"]["in_the_large"]["intercept"]["value"] == pytest.approx(0, abs=1e-8)
    assert after["intercept"]["value"] == pytest.approx(shift, abs=1e-8)

    e, i, d = (part["auroc"] for part in (external, internal, gap))
    assert d["value"] == pytest.approx(e["value"] - i["value"], abs=1e-10)
    below = np.hypot(e["value"] - e["low"], i["high"] - i["value"])
    assert d["low"] == pytest.approx(d["value"] - below, abs=1e-10)

    groups = pandas.DataFrame({"y": y, "score": score, "group": np.arange(300) // 3}).groupby("group")
    pooled = external["per_group"]
    assert pooled["n"] == 100
    assert pooled["auroc"]["value"] == pytest.approx(
        roc_auc_score(groups["y"].max(), groups["score"].mean()), abs=1e-10
    )


def test_features_give_the_same_result_as_images(place: Path) -> None:
    """But for names; a run whose features were exported is tested on features of the other data."""
    network, description, _ = load_network(str(place / "run" / "checkpoints" / "last.pt"), CPU)
    with np.load(place / "other.npz") as file:
        images, arrays = torch.from_numpy(file["images"]).float()[:, None] / 255, dict(file)
    with torch.no_grad():
        features = network((images - description.preprocessing.mean[0]) / description.preprocessing.std[0])[0].numpy()
    ids = np.array([f"arrays/{row:06d}" for row in range(300)])
    np.savez(
        place / "f.npz", features=features, labels=arrays["label"], groups=arrays["group"], sex=arrays["sex"], ids=ids
    )
    common = ("--subgroup-columns", "sex", "--deploy-prevalence", 0.1, *OTHER[4:])
    assert evaluate(place, *RUN, *OTHER[:4], *common, "--output", "b").code == 0
    words = ("--embeddings", "f.npz", "--head", "run/linear_eval/heads.pt")
    result = evaluate(place, *words, *common, "--output", "c")
    assert result.code == 0, result.stderr
    first, second = (json.loads((place / name / "result.json").read_text()) for name in "bc")
    assert first["probes"] == second["probes"]
    assert first["measures"] == second["measures"]
    assert (place / "b" / "predictions.csv").read_text() == (place / "c" / "predictions.csv").read_text()
    rows = first["probes"]["external"]["all"]["details"]["subgroups"]["sex"]["rows"]
    assert [row["n"] for row in rows] == [150, 150]
    assert all(len(line) <= 100 for line in result.stderr.splitlines())
    lines = result.stderr.splitlines()
    assert next(line.split() for line in lines if line.startswith("positive %"))[-1] == "20"
    assert "Brier and intercept are measured where 20 % are: that gap counts as an error" in lines
    for text in (result.stderr, (place / "b" / "report_card.md").read_text()):
        assert "the same threshold where 10 % are positive" in text
    deployed = first["probes"]["external"]["all"]["deployment"]["0.1"]["youden"]["ppv"]["value"]
    below = lines[lines.index("the same threshold where 10 % are positive:") :]
    assert f"{100 * deployed:.1f} [" in next(line for line in below if line.startswith("PPV % (Youden)"))
    for name in ("roc", "reliability", "decision_curve", "subgroups"):
        assert (place / "b" / f"{name}.png").stat().st_size > 5000
    assert "| 13" in (place / "b" / "report_card.md").read_text().replace("12d, 13", "13")


def test_a_finished_result_is_about_the_heads_of_its_time(place: Path, tmp_path: Path) -> None:
    """linear_eval.py runs again with another probe, and leaves other heads in the place of the first ones."""
    shutil.copytree(place, tmp_path / "place")
    first = evaluate(tmp_path / "place", *RUN, *OTHER, "--output", "out")
    assert first.code == 0, first.stderr
    again = evaluate(tmp_path / "place", *RUN, *OTHER, "--output", "out")
    assert again.code == 0
    assert "nothing to do" in again.stderr
    shutil.rmtree(tmp_path / "place" / "run" / "linear_eval")
    words = (*RUN, "--probes", "minority", "--layers", "encoder", "--bootstrap", 0, "--floor", "none")
    assert run("linear_eval", *words, folder=tmp_path / "place").code == 0
    changed = evaluate(tmp_path / "place", *RUN, *OTHER, "--output", "out")
    assert changed.code == 1
    assert "--output out is about heads that have changed since; choose another folder" in changed.stderr


def test_scores_of_any_model(place: Path) -> None:
    generator = np.random.default_rng(0)
    labels = (np.arange(90) % 3 == 0).astype(int)
    scores = expit(generator.normal(size=90) + labels)
    table = pandas.DataFrame({"id": np.arange(90), "label": labels, "score": scores, "group": np.arange(90) // 2})
    table.to_csv(place / "s.csv", index=False)
    result = evaluate(place, "--scores", "s.csv", "--per-group", "max")
    assert result.code == 0, result.stderr
    found = json.loads((place / "s" / "external" / "result.json").read_text())["probes"]
    assert list(found) == ["external"]
    assert found["external"]["scores"]["auroc"]["value"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    pooled = table.groupby("group")
    expected = roc_auc_score(pooled["label"].max(), pooled["score"].max())
    assert found["external"]["scores"]["per_group"]["auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    again = evaluate(place, "--scores", "s.csv", "--per-group", "max")
    assert "nothing to do" in again.stderr


def test_images_of_another_depth_are_read_by_intensity(place: Path, tmp_path: Path) -> None:
    """The run's images have 8 bits; the same images in 16 bits give the same scores."""
    with np.load(place / "other.npz") as file:
        pixels, labels = file["images"], file["label"]
    for name, images in (("bytes", pixels), ("words", pixels.astype(np.uint16) * 257)):
        (tmp_path / name).mkdir()
        for row, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{row:03d}.png")
        table = pandas.DataFrame({"path": [f"{name}/{row:03d}.png" for row in range(len(labels))], "label": labels})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    scores = {}
    for name in ("bytes", "words"):
        words = ("--dataset", "csv", "--data-root", tmp_path / f"{name}.csv", *OTHER[4:], "--intensity", "full")
        result = evaluate(place, *RUN, *words, "--figures", "none", "--output", tmp_path / f"out-{name}")
        assert result.code == 0, result.stderr
        scores[name] = pandas.read_csv(tmp_path / f"out-{name}" / "predictions.csv")["score"].to_numpy()
    np.testing.assert_array_equal(scores["bytes"], scores["words"])


def test_swapped_classes_are_doubted(place: Path, grouped: Result, tmp_path: Path) -> None:
    swapped = ("--class-map", "high=0,1,2,3,4", "low=5,6,7,8,9", "--output", tmp_path / "out")
    result = evaluate(place, *RUN, *OTHER[:4], *swapped)
    assert result.code == 0, result.stderr
    reasons = r"AUROC 0\.\d+ is below 0.5 with its whole interval and the calibration slope -\d+\.\d+ is below 0"
    assert re.search(rf"\nall: {reasons}: are the classes swapped\? see --class-map\n", result.stderr)
    assert "swapped" not in grouped.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((*RUN, *OTHER[:4]), 1, "the class 'high' is none of the run's"),
        ((*RUN, *OTHER[:4], "--class-map", "low=0,1,2,3,4", "high="), 1, "one class only"),
        ((*RUN, *OTHER[:4], "--class-map", "low=nothing"), 1, "--class-map low=nothing"),
        ((*RUN, *OTHER[:4], "--class-map", "low"), 1, "--class-map low"),
        ((*RUN, "--dataset", "csv", "--data-root", "none.csv"), 1, "none.csv"),
        (("--checkpoint", "none.pt", *OTHER), 1, "none.pt"),
        ((*RUN, *OTHER, "--head", "none.pt"), 1, "--head none.pt is missing"),
        ((*RUN, *OTHER, "--head", "own"), 1, "trains no classifier"),
        ((*RUN, *OTHER, "--probe", "minority"), 1, "--probe minority"),
        ((*RUN, *OTHER, "--subgroup-columns", "age"), 1, "--subgroup-columns age"),
        (OTHER, 2, "--dataset needs --checkpoint"),
        ((), 2, "give one of"),
        (("--embeddings", "f.npz"), 2, "--embeddings needs --head"),
        ((*RUN, *OTHER, "--intensity", "auto"), 1, "--intensity auto is for the training set"),
        (("--scores", "s.csv", "--intensity", "full"), 2, "--intensity is for images"),
        (("--scores", "s.csv", *RUN), 2, "--scores takes no --checkpoint"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], code: int, text: str, place: Path, tmp_path: Path) -> None:
    result = run("scripts.evaluate", *words, "--output", tmp_path / "external" / "out", folder=place)
    assert result.code == code
    assert not list(tmp_path.iterdir()), "no empty folder is left"
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1


def test_external_results_are_compared_by_sample_and_by_group(place: Path, grouped: Result, tmp_path: Path) -> None:
    result = json.loads(grouped.stdout)
    metrics = result["probes"]["external"]["all"]
    # The run has no groups, so that its validation chose no threshold for them.
    assert metrics["per_group"]["details"]["thresholds"]["youden"] is None
    metrics["per_group"]["details"]["thresholds"]["youden"] = 0.45
    for name in "ab":
        shutil.copytree(place / "a", tmp_path / name)
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    first = pandas.read_csv(tmp_path / "b" / "predictions.csv")
    noise = np.random.default_rng(0).random(len(first))
    second = first.assign(score=0.5 * first["score"] + 0.5 * noise)
    second.to_csv(tmp_path / "b" / "predictions.csv", index=False)

    def compared(*words: object) -> Result:
        return run("scripts.compare", *words, "--bootstrap", 100, folder=tmp_path)

    for words, details in (((), metrics["details"]), (("--per-group", "mean"), metrics["per_group"]["details"])):
        done = compared("a", "b", "--threshold", "youden", *words)
        assert done.code == 0, done.stderr
        found, threshold = json.loads(done.stdout), details["thresholds"]["youden"]
        assert found["thresholds"] == [threshold, threshold], "frozen, since other data have no validation"
        tables = [first, second]
        if words:
            assert "100 groups (mean of their samples)" in done.stderr
            means = {"label": "max", "score": "mean"}
            tables = [table.groupby("group", sort=False).agg(means) for table in tables]
        for name, table in zip(("first", "second"), tables, strict=True):
            area = roc_auc_score(table["label"], table["score"])
            assert found["auroc"][name] == pytest.approx(area, abs=1e-12)
            hits = (table["score"] >= threshold) == (table["label"] == 1)
            accuracy = hits.groupby(table["label"]).mean().mean()
            assert found["balanced_accuracy"][name] == pytest.approx(accuracy, abs=1e-12)

    first.drop(columns="group").to_csv(tmp_path / "predictions.csv", index=False)
    for words, text in (
        (("a", "b", "--per-group", "max", "--threshold", "youden"), "allows none; use half"),
        (("a", place / "run"), "were tested on different samples"),
        (("b", "predictions.csv", "--per-group", "max"), "has samples without a group"),
        (("b", "."), "give a sample different groups"),
        ((place / "run" / "checkpoints", "b"), "has no predictions.csv; name the evaluation folder"),
    ):
        refused = compared(*words)
        assert (refused.code, len(refused.stderr.strip().splitlines())) == (1, 1), refused.stderr
        assert text in refused.stderr
