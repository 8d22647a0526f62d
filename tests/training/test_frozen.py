"""Features of a frozen encoder, computed once, are those that every step would compute."""

from __future__ import annotations

import contextlib

import torch

from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.datasets import DatasetSettings, load_dataset
from ttc.losses import build_objective
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.networks import PretrainNetwork
from ttc.training.embedder import embed_views
from ttc.training.frozen import precompute
from ttc.training.recipe import StepRecipe


def test_heads_on_precomputed_features_give_what_the_network_gives() -> None:
    dataset = load_dataset(DatasetSettings("digits", train_samples=60))
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), 4)
    network.freeze(None)
    recipe = StepRecipe(
        views=ViewGenerator(PRESETS["none"], 8, (0.3,), (0.4,), 0),
        cutmix=MinorityCutMix(0.0, 1, 0),
        autocast=contextlib.nullcontext,
        micro_batches=1,
        compiled=False,
        learning_rate=lambda step: 0.1,
        clip_norm=None,
    )
    features_as_images, step = precompute(network, dataset, recipe, 0)
    heads = step.prepare(network, build_objective("simclr", projection_dim=4, seed=0))
    rows = dataset.indices("train")[:20]
    expected = embed_views(network, recipe.views.views(dataset.images[rows], rows, rows, 2))
    found = embed_views(heads, step.views.views(features_as_images.images[rows], rows, rows, 2))
    assert found[0].shape == (20, 2, 16)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert {id(p) for p in heads.parameters()} == {id(p) for p in network.parameters() if p.requires_grad}
