"""What the loops call: batches from any step on, progress of late, advice that fits the run."""

from __future__ import annotations

import logging

import pytest
import torch

from ttc.batches.samplers import SAMPLERS, BatchSampler
from ttc.datasets import Dataset, DatasetSettings, TrainingBatches, load_dataset
from ttc.distributed import World
from ttc.run import log as run_log
from ttc.training.plan import collapse_remedies, composition_warning


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSettings("digits", class_ratios=(0.9, 0.1), train_samples=200))


def sampler_of(digits: Dataset, kind: str, batch_size: int = 32) -> BatchSampler:
    labels = digits.labels[digits.indices("train")]
    return BatchSampler(labels, batch_size=batch_size, kind=kind, seed=3, minority_class=digits.minority_class)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_can_be_entered_at_any_step(digits: Dataset, kind: str, ranks: int) -> None:
    sampler, cpu = sampler_of(digits, kind), torch.device("cpu")
    steps, rows = sampler.steps_per_epoch, digits.indices("train")
    loaders = [TrainingBatches(digits, sampler, World(rank, ranks, rank, cpu), 0) for rank in range(ranks)]
    for first in range(2 * steps):
        pieces = [list(loader.rest_of_epoch(first)) for loader in loaders]
        plan = sampler.epoch(first // steps)
        assert {len(piece) for piece in pieces} == {steps - first % steps}
        for offset, ranked in enumerate(zip(*pieces, strict=True), first % steps):
            ids = torch.cat([batch.ids for batch in ranked])
            assert torch.equal(ids, rows[plan.samples[offset]])
            assert torch.equal(torch.cat([batch.draws for batch in ranked]), plan.draws[offset])
            assert torch.equal(torch.cat([batch.labels for batch in ranked]), digits.labels[ids])
            assert torch.equal(torch.cat([batch.images for batch in ranked]), digits.images[ids])


def test_progress_tells_the_rate_of_late_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(run_log.log, "propagate", True)
    caplog.set_level(logging.INFO, logger="ttc")
    progress = run_log.Progress(steps=30, first=10, main=True)
    # A slow first epoch, then one ten times as fast: the second line knows nothing of the first.
    for epoch, seconds in enumerate((100.0, 10.0), 1):
        for _ in range(5):
            progress.step(20)
        clock[0] += seconds
        progress.epoch(epoch, 4, {"train/loss": 1.0})
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "epoch 1/4  loss 1  1 images/s  5 min left"  # 15 steps of 20 s
    assert second == "epoch 2/4  loss 1  10 images/s  20 s left"  # 10 steps of 2 s


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h"), (1e6, "11.6 days")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert run_log.duration(seconds) == text


@pytest.mark.parametrize(
    ("kind", "method", "advice"),
    [
        ("shuffle", "supcon", "--batch-sampler balanced, --method supmin or --method supproto or an --lr below 0.25"),
        ("balanced", "supmin", "--method supproto or an --lr below 0.25"),
        ("stratified", "supproto", "--batch-sampler balanced, --method supmin or an --lr below 0.25"),
    ],
)
def test_advice_against_a_collapse_leaves_out_what_the_run_does(
    digits: Dataset, kind: str, method: str, advice: str
) -> None:
    assert collapse_remedies(sampler_of(digits, kind), method, 0.25) == advice


def test_a_warning_about_few_rare_images_fits_the_sampler(digits: Dataset) -> None:
    warning = composition_warning(sampler_of(digits, "shuffle"), "supmin")
    assert warning is not None
    assert warning.endswith("try --batch-sampler balanced, --min-minority-per-batch 4 or a larger --batch-size")
    assert composition_warning(sampler_of(digits, "balanced"), "supmin") is None
    assert composition_warning(sampler_of(digits, "shuffle"), "simclr") is None
    # Of twenty classes a balanced batch holds too few of each, whatever the sampler does.
    many = BatchSampler(torch.arange(400) % 20, batch_size=40, kind="balanced", seed=0, minority_class=19)
    advice = composition_warning(many, "supmin")
    assert advice is not None
    assert advice.endswith("try a larger --batch-size")
