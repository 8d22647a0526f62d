"""The layouts of files of weights in circulation: from random tensors under exactly those names."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models.random_weights import (
    CONVNET,
    RESNET,
    SMALL_RESNET,
    VIT,
    State,
    needs_timm,
    random_like,
    torchvision,
    under,
    zeros,
)
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.weights import load_weights
from ttc.run import checkpoint


def moco(state: State) -> object:
    """facebookresearch/moco: DistributedDataParallel around two encoders with heads, and the queue."""
    other = {name: value + 1 for name, value in state.items()}
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": {
            **under("module.encoder_q.", state),
            **zeros("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.weight"),
            **under("module.encoder_k.", other),
            **zeros("module.encoder_k.fc.0.weight", "module.queue", "module.queue_ptr"),
        },
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.03, "params": [0, 1]}]},
    }


def supcontrast(state: State) -> object:
    """HobbitLong/SupContrast: DataParallel around the encoder alone, `shortcut`, the parsed flags as an object."""
    theirs = {name.replace(".downsample.", ".shortcut."): value for name, value in state.items()}
    assert any(".shortcut." in name for name in theirs)
    return {
        "opt": argparse.Namespace(batch_size=256, model="resnet18"),
        "model": {**under("encoder.module.", theirs), **zeros("head.0.weight", "head.0.bias", "head.2.weight")},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 500,
    }


def lightning(state: State) -> object:
    return {
        "epoch": 3,
        "global_step": 900,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": {**under("backbone.", state), **zeros("projection_head.layers.0.weight")},
        "loops": {"fit_loop": {"state_dict": {}}},
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [],
    }


def dino(state: State) -> object:
    """facebookresearch/dino: student under DistributedDataParallel, teacher without, each with a head."""
    other = {name: value + 1 for name, value in state.items()}
    return {
        "student": {**under("module.backbone.", other), **zeros("module.head.mlp.0.weight")},
        "teacher": {**under("backbone.", state), **zeros("head.mlp.0.weight", "head.last_layer.weight_v")},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }


def mae(state: State) -> object:
    """facebookresearch/mae: the decoder beside the encoder."""
    decoder = zeros("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight", "decoder_pred.bias")
    return {"model": {**state, **decoder}, "optimizer": {}, "epoch": 799, "scaler": {}, "args": argparse.Namespace()}


def timm_training(state: State) -> object:
    return {"epoch": 1, "arch": "x", "state_dict": {**state, **zeros("head.weight", "head.bias")}, "version": 2}


def open_clip(state: State) -> object:
    """BiomedCLIP as open_clip saves it: timm's model is the trunk of the visual tower, text beside it."""
    return {**under("visual.trunk.", state), **zeros("text.transformer.embeddings.weight", "logit_scale")}


def whole_checkpoint(state: State) -> object:
    return {
        "format": checkpoint.FORMAT,
        "kind": "pretrain",
        "encoder": state,
        "projection": zeros("0.weight"),
        "step": 1,
    }


def nested(key: str, prefix: str) -> Callable[[State], object]:
    return lambda state: {key: under(prefix, state)} if key else under(prefix, state)


LAYOUTS: list[tuple[Callable[[State], object], EncoderSpec, str]] = [
    (torchvision, RESNET, ""),
    (moco, RESNET, "module.encoder_q."),
    (supcontrast, SMALL_RESNET, "encoder.module."),
    (lightning, RESNET, "backbone."),
    (whole_checkpoint, RESNET, ""),
    (dino, VIT, "backbone."),
    (mae, VIT, ""),
    (timm_training, VIT, ""),
    (open_clip, VIT, "visual.trunk."),
    (nested("model", "module."), CONVNET, "module."),
    (nested("model_state", "encoder."), CONVNET, "encoder."),
    (nested("encoder", ""), CONVNET, ""),
    (nested("backbone", "model."), CONVNET, "model."),
    (nested("student", "student.backbone."), CONVNET, "student.backbone."),
    (nested("", "image_encoder."), CONVNET, "image_encoder."),
]


@pytest.mark.parametrize(
    ("layout", "spec", "prefix"),
    [
        pytest.param(*case, id=f"{case[0].__name__}-{case[2]}", marks=needs_timm if case[1] is VIT else ())
        for case in LAYOUTS
    ],
)
def test_layouts_in_circulation(
    layout: Callable[[State], object], spec: EncoderSpec, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, path = random_like(spec), tmp_path / "weights.pth"
    torch.save(layout(state), path)
    encoder = build_encoder(spec)
    caplog.set_level(logging.INFO, "ttc")
    loaded = load_weights(encoder, spec, str(path))
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    count = sum("num_batches_tracked" not in name for name in state)
    assert (loaded.matched, loaded.total, loaded.prefix, loaded.missing) == (count, count, prefix, ())
    line = caplog.records[-1].getMessage()
    assert line.startswith(f"weights {path}: matched {count} of {count} tensors")
    assert (f"prefix {prefix} removed" in line) == bool(prefix)


@needs_timm
def test_dinov2_as_meta_published_it(tmp_path: Path) -> None:
    """Registers under another name, one position for the class token too, a mask token; other positions than here."""
    spec = EncoderSpec("timm/vit_small_patch14_reg4_dinov2", 3, 28)
    state = random_like(spec)
    positions = state.pop("pos_embed")
    theirs = {name: value for name, value in state.items() if name != "reg_token"}
    theirs |= {"register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 384)}
    theirs["pos_embed"] = torch.cat([torch.ones(1, 1, 384), positions], 1)
    torch.save(theirs, tmp_path / "dinov2.pth")
    encoder = build_encoder(spec)
    loaded = load_weights(encoder, spec, str(tmp_path / "dinov2.pth"))
    assert loaded.matched == loaded.total
    torch.testing.assert_close(encoder.reg_token, nn.Parameter(state["reg_token"]))
    torch.testing.assert_close(encoder.cls_token, nn.Parameter(state["cls_token"] + 1))
