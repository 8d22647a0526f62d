"""What a run watches and shows: training is the same with and without it, and TensorBoard finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import run
from tests.smoke.runs import assert_same_weights, metrics

SHORT = ("--epochs", 2, "--batch-size", 64)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    done = run("pretrain", *SHORT, "--metrics-every-epochs", 1, "--output", "run", folder=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


def test_training_is_the_same_with_and_without_the_watch(watched: Path, tmp_path: Path) -> None:
    done = run("pretrain", *SHORT, "--metrics-every-epochs", 0, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert_same_weights(watched, tmp_path / "run")
    losses = [[line["train/loss"] for line in metrics(folder) if "train/loss" in line]
              for folder in (watched, tmp_path / "run")]  # fmt: skip
    assert losses[0] == losses[1]


def test_the_probe_and_the_cosines_are_logged_at_every_watch(watched: Path) -> None:
    lines = [line for line in metrics(watched) if "watch/probe_auroc" in line]
    assert [line["epoch"] for line in lines] == [1, 2]
    wanted = {"probe_balanced_accuracy", "mean_cosine_within", "mean_cosine_between", "effective_rank", "collapsed"}
    assert all({f"watch/{name}" for name in wanted} <= line.keys() for line in lines)
    result = json.loads((watched / "result.json").read_text())
    assert result["watch/probe_auroc"] == lines[-1]["watch/probe_auroc"]
    assert result["stopped_on_collapse"] is False


def test_a_collapsed_run_ends_as_a_finished_one(tmp_path: Path) -> None:
    words = ("--lr", 1e-9, "--epochs", 9, "--metrics-every-epochs", 1, "--stop-on-collapse", 2, "--output", "run")
    done = run("pretrain", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "--stop-on-collapse 2: the run ends after epoch 4" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], result["stopped_on_collapse"]) == (4, True)
    assert (tmp_path / "run" / "checkpoints" / "epoch_0004.pt").is_file()
    # Killed between the last checkpoint and the result: the count of the checkpoint ends the run again.
    (tmp_path / "run" / "result.json").unlink()
    assert run("pretrain", *words, folder=tmp_path).code == 0
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    for each in (result, again):
        del each["seconds"], each["measures"]["train/seconds"]
    assert again == result


def test_tensorboard_finds_plan_views_charts_and_the_row_of_the_table(watched: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(watched / "tb")).Reload()
    tags = events.Tags()
    assert {"views/0,1,2,3,4", "views/5,6,7,8,9"} == set(tags["images"])
    assert b"rare images per batch" in events.Tensors("plan/text_summary")[0].tensor_proto.string_val[0]
    assert {"custom_scalars__config__", "plan/text_summary"} <= set(tags["tensors"])
    row = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"convnet-w8" in row  # derived, not given
    assert b"log_every_steps" not in row
    for line in metrics(watched):
        for key in line.keys() - {"step", "epoch", "images"}:
            assert line["step"] in [event.step for event in events.Scalars(key)]


def test_linear_eval_writes_its_pr_curves(pretrained_run: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--probes", "minority", "--probe-seeds", 1)
    done = run("linear_eval", *words, "--bootstrap", 0, "--floor", "none", "--output", "out", folder=tmp_path)
    assert done.code == 0, done.stderr
    tags = reader.EventAccumulator(str(tmp_path / "out" / "tb")).Reload().Tags()
    assert tags["tensors"] == ["test/minority"]
