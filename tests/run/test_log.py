"""What TensorBoard finds in the event files: read back with its own reader."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
import torch

from ttc.run.log import RunLog, save_pr_curves, save_projector

EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator


def read(folder: Path) -> object:
    events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "images", "tensors"), 0))
    return events.Reload()


def log_steps(folder: Path, first: int, last: int, *, offset: float = 0.0) -> RunLog:
    """Continue after step `first` and log up to step `last`, as a run does."""
    run_log = RunLog(folder, main=True, step=first)
    if not first:
        run_log.text("plan", ["one line"])
        run_log.image_grid("views/rare", torch.rand(8, 1, 4, 4))
    for step in range(first + 1, last + 1):
        run_log.scalars(step=step, epoch=0, images=step, values={"train/loss": step + offset})
    return run_log


@pytest.mark.parametrize("continued", [0, 3])
def test_a_killed_run_leaves_no_doubled_steps(continued: int, tmp_path: Path) -> None:
    log_steps(tmp_path, 0, 5, offset=100.0)._writer.flush()  # killed: never closed
    log_steps(tmp_path, continued, 6).close()
    events = read(tmp_path / "tb")
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, step + (100.0 if step <= continued else 0.0)) for step in range(1, 7)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == found
    assert len(events.Tensors("plan/text_summary")) == len(events.Images("views/rare")) == 1
    assert events.Tensors("plan/text_summary")[0].tensor_proto.string_val == [b"    one line"]


def test_the_row_of_the_hparams_table_is_written_once_with_the_results(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run_log = log_steps(tmp_path, 0, 2)
    values = {"lr": 0.1, "epochs": 3, "method": "supmin", "compile": False, "margin": [1.0], "weights": None}
    run_log.hparams(values, {"train/loss": 2.0})
    run_log.close()
    assert len(list((tmp_path / "tb").rglob("events*"))) == 1
    events = read(tmp_path / "tb")
    found = {}
    for tag, content in events.summary_metadata.items():
        if content.plugin_data.plugin_name == "hparams":
            found[tag] = HParamsPluginData.FromString(content.plugin_data.content)
    started = found["_hparams_/session_start_info"].session_start_info.hparams
    assert started["lr"].number_value == 0.1
    assert started["epochs"].number_value == 3
    assert started["method"].string_value == "supmin"
    assert started["compile"].bool_value is False
    assert started["margin"].string_value == "[1.0]"
    metrics = found["_hparams_/experiment"].experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["train/loss"]


def test_charts_put_the_classes_side_by_side(tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    run_log = log_steps(tmp_path, 0, 1)
    run_log.charts({"SAA": ["watch/SAA_class0", "watch/SAA_class1"]})
    run_log.close()
    events = read(tmp_path / "tb")
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    (chart,) = category.chart
    assert chart.title == "SAA"
    assert list(chart.multiline.tag) == ["watch/SAA_class0$", "watch/SAA_class1$"]


def test_pr_curves_are_those_of_the_test_predictions(tmp_path: Path) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    labels, scores = [1, 0, 1, 0], [0.9, 0.8, 0.4, 0.1]
    rows = pandas.DataFrame({"probe": "own", "split": "test", "label": labels, "score": scores})
    other = rows.assign(split="val", score=0.5)
    save_pr_curves(tmp_path, pandas.concat([rows, other]), positive_class=0)
    curve = make_ndarray(read(tmp_path).Tensors("test/own")[0].tensor_proto)
    hits, false_alarms = curve[0], curve[1]
    # Class 0 is the positive one: at the lowest threshold everything is called positive.
    assert (hits[0], false_alarms[0]) == (2, 2)
    assert (hits[126 // 2], false_alarms[126 // 2]) == (1, 1)
    save_pr_curves(tmp_path / "three", rows.rename(columns={"score": "score_0"}), positive_class=0)
    assert not (tmp_path / "three").exists()


def test_the_projector_gets_rows_labels_and_sprites(tmp_path: Path) -> None:
    save_projector(tmp_path, torch.rand(5, 3), list("abcde"), torch.rand(5, 1, 4, 4))
    config = (tmp_path / "projector_config.pbtxt").read_text()
    for part in ("tensors.tsv", "metadata.tsv", "sprite.png", "single_image_dim: 4"):
        assert part in config
    (table,) = tmp_path.rglob("tensors.tsv")
    assert len(table.read_text().splitlines()) == 5


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, main=False)
    run_log.scalars(step=1, epoch=0, images=1, values={"train/loss": 1.0})
    run_log.hparams({"lr": 0.1}, {"train/loss": 1.0})
    run_log.charts({"SAA": ["a"]})
    run_log.text("plan", ["x"])
    run_log.close()
    assert list(tmp_path.iterdir()) == []
