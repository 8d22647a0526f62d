"""On a GPU: the numbers of the CPU, no waiting between two log steps, and every script from start to end."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.processes import run, run_ranks
from tests.steps import trainer
from tests.views import generator, noise
from ttc.batches.augment import PRESETS
from ttc.losses import METHODS, logsumexp
from ttc.metrics.representation import RepresentationMetrics, representation_metrics

sys.path.insert(0, str(Path(__file__).parents[1] / "losses"))
from loss_cases import Inputs, inputs_for, ready

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


def gradients_of(
    method: str, device: torch.device, dtype: torch.dtype, *, compiled: bool = False
) -> tuple[float, list[torch.Tensor]]:
    """Return loss and gradients of one batch, which is rounded to float32 for any dtype."""
    objective = copy.deepcopy(ready(method)).float().to(device, dtype)
    if compiled:
        objective.validate = False  # as in training; it reads from the device, which would end the graph
        objective.compile(fullgraph=True)
    inputs = inputs_for(objective, 64, "mixed", 8)
    z, features = (each.detach().float().to(device, dtype).requires_grad_() for each in (inputs.z, inputs.features))
    loss = Inputs(z, inputs.labels.to(device), features, inputs.sample_ids.to(device)).call(objective)
    wanted = [z, features, *objective.parameters()]
    found = torch.autograd.grad(loss, [each for each in wanted if each.requires_grad], allow_unused=True)
    return float(loss.detach()), [each.double().cpu() for each in found if each is not None]


@pytest.mark.parametrize("block", [1024, 24], ids=["one block", "streamed"])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_that_of_float64_on_the_cpu(method: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected_loss, expected = gradients_of(method, CPU, torch.float64)
    monkeypatch.setattr(logsumexp, "_BLOCK_GPU", block)
    monkeypatch.setattr(logsumexp, "_SINGLE_PASS_GPU", block * block)
    loss, found = gradients_of(method, GPU, torch.float32)
    assert loss == pytest.approx(expected_loss, rel=2e-6)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= 2e-6 * float(other.norm())


@pytest.mark.parametrize("method", ["simclr", "supcon", "supmin", "supproto"])
def test_a_compiled_loss_has_the_gradient_of_float64_on_the_cpu(method: str) -> None:
    expected_loss, expected = gradients_of(method, CPU, torch.float64)
    loss, found = gradients_of(method, GPU, torch.float32, compiled=True)
    assert loss == pytest.approx(expected_loss, rel=2e-6)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= 2e-6 * float(other.norm())


def test_a_large_batch_has_the_gradient_of_float64() -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(12_288, 128, device=GPU), dim=1)
    found = []
    for dtype in (torch.float64, torch.float32):
        own = rows.to(dtype).requires_grad_()
        logsumexp.log_sum_exp(own, own, 10.0, self_offset=0).square().mean().backward()
        assert own.grad is not None
        found.append(own.grad.double())
    assert float((found[1] - found[0]).norm()) <= 2e-6 * float(found[0].norm())


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_test_sees_what_waits() -> None:
    values = torch.ones(3, device=GPU)
    with waiting_is_an_error(), pytest.raises(RuntimeError):
        values.sum().item()
    with waiting_is_an_error(), pytest.raises(RuntimeError):
        torch.tensor([1.0], device=GPU)


@pytest.mark.parametrize("preset", PRESETS)
def test_views_are_those_of_the_cpu_and_do_not_wait(preset: str) -> None:
    images, ids = noise(16, 3, 28), torch.arange(16)
    made = generator(PRESETS[preset], 28)
    expected = made.views(images, ids, ids, 2)
    images, ids = images.to(GPU), ids.to(GPU)
    made.views(images, ids, ids, 2)
    with waiting_is_an_error():
        found = made.views(images, ids, ids, 2)
    assert float((found.cpu() - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("placed", ["images in main memory", "images on the device"])
@pytest.mark.parametrize(
    "words",
    [
        *(("--method", method) for method in METHODS),
        ("--method", "bcl", "--micro-batch-size", "16", "--minority-cutmix", "0.4"),
        ("--clip-gradient-norm", "1", "--optimizer", "adamw", "--batch-sampler", "balanced"),
        ("--precision", "bf16", "--ce-weight", "1", "--instance-weight", "0.5"),
    ],
    ids=" ".join,
)
def test_no_step_waits(words: tuple[str, ...], placed: str, tmp_path: Path) -> None:
    state, train = trainer(words, GPU, tmp_path, images_on_device=placed == "images on the device")
    # Libraries set themselves up in the first steps; the rule is about the others.
    train(3)
    with waiting_is_an_error():
        train(3)
    assert state.step == 6


def values_of(metrics: RepresentationMetrics) -> list[float]:
    """Return all values in order; -1 for those that are not defined."""
    out = []
    for entry in metrics.values():
        if isinstance(entry, dict):
            out += [-1.0 if value is None else value for value in (*entry["per_class"], entry["macro"], entry["all"])]
    return out


@pytest.mark.parametrize("kind", ["two classes", "all alike", "few points"])
def test_representation_metrics_are_those_of_the_cpu(kind: str) -> None:
    torch.manual_seed(1)
    labels = (torch.arange(300) % 20 == 0).long()
    embeddings = torch.randn(2, 300, 32) + 2 * labels[None, :, None]
    if kind == "all alike":
        embeddings = embeddings[:1, :1].expand(2, 300, 32)
    if kind == "few points":  # many rows at equal distance
        embeddings = embeddings[:, torch.arange(300) % 7]
    expected = values_of(representation_metrics(embeddings, labels, peu_draws=1))
    for block_rows in (None, 17):
        found = values_of(representation_metrics(embeddings, labels, peu_draws=1, block_rows=block_rows, device=GPU))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_every_script_runs_and_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    words = ("--method", "supproto", "--epochs", 3, "--seed", 1, "--device", "cuda", "--output", "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "STOP").touch()
    stopped = run("pretrain", *words, folder=tmp_path)
    assert stopped.code == 75, stopped.stderr
    (tmp_path / "run" / "STOP").unlink()
    checkpoint = ("--checkpoint", "run/checkpoints/last.pt")
    for script, more in (
        ("pretrain", words),
        ("linear_eval", checkpoint),
        ("compute_metrics", checkpoint),
        ("finetune", (*checkpoint, "--epochs", 2)),
    ):
        done = run(script, *more, folder=tmp_path)
        assert done.code == 0, done.stderr
    record = json.loads((tmp_path / "run" / "env.json").read_text())
    assert record["device"] == torch.cuda.get_device_name(GPU)


@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "bf16"),
        ("--precision", "fp16"),
        ("--micro-batch-size", 16, "--precision", "bf16"),
        ("--encoder", "resnet18", "--image-size", 32, "--precision", "bf16"),
        ("--method", "tsc"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_other_settings_run(words: tuple[object, ...], tmp_path: Path) -> None:
    done = run("pretrain", *words, "--epochs", 2, "--batch-size", 64, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr


def test_one_process_of_a_group_uses_nccl(tmp_path: Path) -> None:
    """Two processes would need two GPUs; one goes through the same calls."""
    from tests.processes import Running, free_port

    env = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    done = Running("pretrain", "--epochs", 1, "--output", "run", folder=tmp_path, env=env).wait()
    assert done.code == 0, done.stderr


def test_two_processes_on_the_cpu_of_a_machine_with_a_gpu(tmp_path: Path) -> None:
    run_ranks(2, "pretrain", "--epochs", 1, "--device", "cpu", "--output", "run", folder=tmp_path)
