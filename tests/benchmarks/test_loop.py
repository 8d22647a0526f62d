"""The benchmarks' run of pretrain.py's own loop, and the published pipeline that it is compared with."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

import pretrain
from benchmarks import loop, original
from benchmarks.published import Length, Published
from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.losses import build_objective
from ttc.models.networks import PretrainNetwork

CPU = torch.device("cpu")
RUN = ("--dataset", "digits", "--batch-size", "256", "--epochs", "3", "--warmup-epochs", "1", "--encoder", "convnet-w8")


def test_steps_in_pieces_are_those_of_one_run(tmp_path: Path) -> None:
    """Ends of epochs inside and at the end of a piece included."""
    whole, pieces = (loop.Loop(RUN, tmp_path / name, CPU) for name in ("whole", "pieces"))
    assert whole.steps_per_epoch == 2
    whole.steps(6)
    for count in (1, 2, 1, 2):
        pieces.steps(count)
    assert pieces.state.step == whole.state.step == 6
    assert pieces.state.epoch == whole.state.epoch == 3
    for one, other in zip(pieces.state.network.parameters(), whole.state.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "pieces/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


def test_the_profile_looks_at_the_lines_of_the_loop_alone(tmp_path: Path) -> None:
    run = loop.Loop(RUN, tmp_path / "run", CPU)
    shares = run.profile(2, CPU)
    assert run.state.step == 2
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.__getitem__) == "network"
    assert all(shares.values())


def test_every_part_of_a_step_is_found_in_the_loop() -> None:
    parts = {loop.part_of(line) for line in inspect.getsource(pretrain.train).splitlines()}
    assert parts == set(loop.PARTS)


def test_an_epoch_of_the_published_pipeline_computes_supmin(tmp_path: Path) -> None:
    """With views that change nothing and one batch its loss is that of this project's objective."""
    run = loop.Loop((*RUN, "--augmentation", "none", "--image-size", "8"), tmp_path / "run", CPU)
    rows, images = run.dataset.indices("train"), run.dataset.images
    network, labels = run.state.network, run.dataset.labels[rows]
    length = Length(batch_size=len(rows), epochs=2, warmup_epochs=1, lr=0.1, weight_decay=0.0)
    views = ViewGenerator(PRESETS["none"], 8, run.dataset.mean, run.dataset.std, seed=0)
    assert isinstance(network, PretrainNetwork)
    with torch.no_grad():
        _, z = network(views.plain(images[rows]))
    expected = build_objective("supmin", minority_class=1)(torch.stack((z, z), 1), labels)
    published = Published(network, images[rows], labels, views, length, seed=0)
    # Each image twice in a batch moves BatchNorm's statistics no more than once.
    assert published.epoch() == pytest.approx(float(expected), rel=1e-4)
    assert published.epoch() < float(expected)


def test_time_until_an_accuracy() -> None:
    curve = [(2.0, 0.5), (3.0, 0.8), (4.0, 0.7)]
    assert original.seconds_until(curve, 0.8) == 5.0
    assert original.seconds_until(curve, 0.9) is None
