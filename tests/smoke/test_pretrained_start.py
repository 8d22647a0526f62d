"""Start from weights: across data sets, with a frozen encoder, layer by layer, and as docs/choosing.md says."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.random_weights import needs_safetensors, needs_timm, random_like
from tests.processes import ROOT, Running, call, run, run_ranks
from tests.smoke.runs import assert_same_weights, metrics, wait_for_lines
from ttc.models.encoders import EncoderSpec

SHORT = ("--epochs", 1, "--batch-size", 32, "--train-samples", 96, "--metrics-every-epochs", 0, "--num-workers", 0)


def colour_images(folder: Path, size: int) -> None:
    """Draw two classes of colour images."""
    from PIL import Image

    made = torch.Generator().manual_seed(0)
    for label, count in (("0", 60), ("1", 24)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(0, 256, (size, size, 3), generator=made, dtype=torch.uint8) // (1 + int(label))
            Image.fromarray(pixels.numpy()).save(folder / label / f"{number}.png")


def state_of(folder: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    return state


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on colour images of 32 px."""
    folder = tmp_path_factory.mktemp("colour")
    colour_images(folder / "images", 32)
    words = ("--dataset", "imagefolder", "--data-root", "images", "--image-size", 32, "--encoder", "convnet-w4")
    done = run("pretrain", *words, *SHORT, "--method", "ce", "--output", "run", folder=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("normalise", [None, "weights", "data"])
def test_a_checkpoint_starts_a_run_on_other_images(normalise: str | None, colour_run: Path, tmp_path: Path) -> None:
    """Colour to grey, 32 to 64 px, other classes; the sum over channels is what the new first layer starts from."""
    words = ("--image-size", 64, "--encoder", "convnet-w4", "--weights", colour_run / "checkpoints" / "last.pt")
    more = () if normalise is None else ("--normalise", normalise)
    done = run("pretrain", *words, *SHORT, *more, "--epochs", 0, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "matched 25 of 25 tensors" in done.stderr
    before, after = state_of(colour_run), state_of(tmp_path / "run")
    assert isinstance(before["encoder"], dict)
    assert isinstance(after["encoder"], dict)
    first: Tensor = before["encoder"]["layers.0.weight"]
    assert torch.equal(after["encoder"]["layers.0.weight"], first.sum(1, keepdim=True))
    assert torch.equal(after["encoder"]["layers.12.weight"], before["encoder"]["layers.12.weight"])
    means = [preprocessing(state)["mean"] for state in (before, after)]
    if normalise == "data":
        assert means[1] != pytest.approx([sum(means[0]) / 3])
    else:
        assert means[1] == pytest.approx([sum(means[0]) / 3])
    evaluated = run(
        "linear_eval", "--checkpoint", "run/checkpoints/last.pt", "--layers", "encoder", "layers.6",
        "--probes", "all", "--bootstrap", 0, folder=tmp_path,
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.stderr


def preprocessing(state: dict[str, object]) -> dict[str, list[float]]:
    description = state["description"]
    assert isinstance(description, dict)
    found: dict[str, list[float]] = description.get("preprocessing", description)
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small encoder for the digits."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    state = random_like(EncoderSpec("convnet-w4", 1, 8))
    torch.save({name: value.abs() if "running_var" in name else value for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("augmentation", ["digits", "none"])
def test_a_frozen_encoder_stands_still(augmentation: str, weights: Path, tmp_path: Path) -> None:
    words = ("--encoder", "convnet-w4", "--weights", weights, "--freeze-encoder", "--augmentation", augmentation)
    done = run("pretrain", *words, *SHORT, "--ce-weight", 0.5, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert ("features are computed once" in done.stderr) == (augmentation == "none")
    state = state_of(tmp_path / "run")
    assert isinstance(state["encoder"], dict)
    given = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, given[name]) for name, value in state["encoder"].items())


def test_features_that_are_computed_once_train_the_same_head(weights: Path, tmp_path: Path) -> None:
    """A crop of (almost) nothing makes views anew in every step, which are the plain ones up to rounding."""
    words = ("--encoder", "convnet-w4", "--weights", weights, "--freeze-encoder", *SHORT, "--log-every-steps", 1)
    losses = []
    for name, more in (("once", ()), ("anew", ("--crop-scale", 0.999999, 1))):
        done = run("pretrain", *words, "--augmentation", "none", *more, "--output", name, folder=tmp_path)
        assert done.code == 0, done.stderr
        assert ("features are computed once" in done.stderr) == (name == "once")
        losses.append([line["train/loss"] for line in metrics(tmp_path / name) if "train/loss" in line])
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_several_ranks_train_a_head_alone(weights: Path, tmp_path: Path) -> None:
    """With cross-entropy nothing of the network learns, so that there is nothing for DDP."""
    words = ("--encoder", "convnet-w4", "--weights", weights, "--freeze-encoder", "--method", "ce")
    run_ranks(2, "pretrain", *words, *SHORT, "--output", "run", folder=tmp_path)
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--normalise", "weights"), 1, "--normalise weights goes with --weights"),
        (("--allow-missing-weights",), 1, "--allow-missing-weights goes with --weights"),
        (("--freeze-encoder", "--layer-decay", 0.5), 2, "--layer-decay has no effect with --freeze-encoder"),
        (("--freeze-until", "layers.99"), 1, "--freeze-until layers.99 is no layer with weights"),
        (("--encoder", "resnet18", "--stem", "small", "--drop-path", 0.1), 1, "--drop-path 0.1: --encoder resnet18"),
        (("--encoder", "vit_b_32"), 1, "--image-size 8 does not fit --encoder vit_b_32; it takes 32, 64"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: tuple[object, ...], code: int, part: str, tmp_path: Path) -> None:
    refused = run("pretrain", *words, *SHORT, "--output", "run", folder=tmp_path)
    assert refused.code == code
    assert part in refused.stderr.splitlines()[-1]


VIT = (
    "--encoder", "timm/test_vit", "--image-size", 32, "--optimizer", "adamw", "--lr", 1e-3, "--layer-decay", 0.7,
    "--drop-path", 0.3, "--grad-checkpointing", "--micro-batch-size", 16,
)  # fmt: skip


@pytest.mark.long
@needs_timm
def test_a_stopped_vit_continues_bit_by_bit(tmp_path: Path) -> None:
    """With skipped blocks, recomputed blocks and micro-batches; random states of skipped blocks are continued too."""
    words = (*VIT, *SHORT, "--epochs", 4, "--log-every-steps", 1)
    whole = run("pretrain", *words, "--output", "whole", folder=tmp_path)
    assert whole.code == 0, whole.stderr
    running = Running("pretrain", *words, "--output", "run", folder=tmp_path)
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 4, running)
    assert running.process.pid is not None
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.wait().code == 75
    done = run("pretrain", *words, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.long
@needs_timm
def test_all_that_saves_memory_goes_together(tmp_path: Path) -> None:
    run_ranks(2, "pretrain", *VIT, *SHORT, "--precision", "bf16", "--output", "run", folder=tmp_path)
    words = ("--optimizer", "adamw", "--layer-decay", 0.7, "--freeze-until", "blocks.2", "--grad-checkpointing")
    more = ("--drop-path", 0.1, "--micro-batch-size", 16, "--batch-size", 32, "--epochs", 1, "--bootstrap", 0)
    done = run("finetune", "--checkpoint", "run/checkpoints/last.pt", *words, *more, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "times 0.7 per block from the top" in done.stderr
    tuned, start = state_of(tmp_path / "run" / "finetune"), state_of(tmp_path / "run")
    assert isinstance(tuned["encoder"], dict)
    assert isinstance(start["encoder"], dict)
    same = {name: torch.equal(value, start["encoder"][name]) for name, value in tuned["encoder"].items()}
    assert same["blocks.2.attn.qkv.weight"]
    assert not same["blocks.3.attn.qkv.weight"]

    words = ("--checkpoint", "run/checkpoints/last.pt", "--format", "torchscript", "card", "--output", "out")
    done = run("scripts.export", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "# timm/test_vit encoder" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    hub = torch.hub.load(  # type: ignore[no-untyped-call]  # torch
        str(ROOT), "encoder", source="local", checkpoint=str(tmp_path / "run" / "checkpoints" / "last.pt")
    )
    images = torch.rand(2, 1, 32, 32)
    exported = torch.jit.load(tmp_path / "out" / "encoder.torchscript.pt")  # type: ignore[no-untyped-call]  # torch
    torch.testing.assert_close(hub(images), exported(images))


CHOOSING = (ROOT / "docs" / "choosing.md").read_text().partition("## I have pretrained weights")[2]


@pytest.mark.slow
@needs_timm
def test_the_three_ways_of_the_page_run(tmp_path: Path) -> None:
    """With a small network of the kind that the page names, and random weights in the place of the published ones."""
    blocks = re.findall(r"```\n(.*?)```", CHOOSING, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [words[1] for words in commands].count("pretrain.py") == 3
    colour_images(tmp_path / "FOLDER", 32)
    torch.save(random_like(EncoderSpec("timm/test_convnext", 3, 32)), tmp_path / "weights.pth")
    assert call(follow, tmp_path, commands) == 0


def follow(folder: Path, commands: list[list[str]]) -> None:
    """Run commands one after the other, in one process, so that heavy packages are imported once."""
    os.chdir(folder)
    small = "--encoder timm/test_convnext --weights weights.pth --image-size 32 --num-workers 0 --batch-size 16"
    less = {"pretrain": small, "linear_eval": "--bootstrap 0 --probe-seeds 1 --num-workers 0"}
    less["finetune"] = "--epochs 3 --batch-size 16 --bootstrap 0 --num-workers 0"
    for _, script, *words in commands:
        name = script.removesuffix(".py")
        words = [f"@{ROOT / word[1:]}" if word.startswith("@") else word for word in words]
        words = ["stages.1" if word == "features.5" else word for word in words]
        epochs = ["--epochs", "1"] if any(word.startswith("@") for word in words) else []
        sys.argv = [script, *words, *less[name].split(), *epochs]
        assert importlib.import_module(name).main() == 0


# Published weights on a machine without network.


def hub_cache(home: Path) -> dict[str, Tensor]:
    """Lay out the Hub's cache as a download leaves it; return the weights in it."""
    from safetensors.torch import save_file

    state = random_like(EncoderSpec("timm/test_vit", 3, 32))
    snapshot = home / "hub" / "models--someone--vit" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123abcd")
    settings = {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 2,
                "fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"}  # fmt: skip
    (snapshot / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": settings}))
    heads = {"head.weight": torch.zeros(2, 64), "head.bias": torch.zeros(2)}
    save_file({**state, **heads}, snapshot / "model.safetensors", {"format": "pt"})
    return state


@needs_timm
@needs_safetensors
def test_weights_of_the_hub_come_from_its_cache_without_network(tmp_path: Path) -> None:
    words = ("--encoder", "timm/hf-hub:someone/vit", "--weights", "default", "--image-size", 32, *SHORT, "--epochs", 0)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    refused = run("pretrain", *words, "--output", "run", folder=tmp_path, env=offline)
    assert refused.code == 1
    line = refused.stderr.splitlines()[-1]
    assert "--encoder timm/hf-hub:someone/vit: its configuration could not be fetched" in line
    assert "fill the cache (HF_HOME), or name the architecture and pass --weights FILE" in line
    state = hub_cache(tmp_path / "hf")
    done = run("pretrain", *words, "--output", "run", folder=tmp_path, env=offline)
    assert done.code == 0, done.stderr
    made = state_of(tmp_path / "run")
    assert isinstance(made["encoder"], dict)
    assert torch.equal(made["encoder"]["blocks.5.mlp.fc1.weight"], state["blocks.5.mlp.fc1.weight"])
    first = state["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(made["encoder"]["patch_embed.proj.weight"], first)
    assert preprocessing(made)["mean"] == pytest.approx([0.2])
    assert preprocessing(made)["std"] == pytest.approx([0.5])


@needs_timm
def test_published_weights_that_are_not_in_the_cache_name_the_two_ways_out(tmp_path: Path) -> None:
    words = ("--encoder", "timm/test_vit", "--weights", "default", "--image-size", 32, *SHORT)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    refused = run("pretrain", *words, "--output", "run", folder=tmp_path, env=offline)
    assert refused.code == 1
    line = refused.stderr.splitlines()[-1]
    assert "--weights default: timm/test_vit.r160_in1k could not be fetched" in line
    assert "fill the cache (HF_HOME), or download the file elsewhere and pass the file with --weights FILE" in line
