"""The encoder that training starts from, and how its layers learn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ttc.flags.parser import Namespace, Parser, real
from ttc.models.encoders import EncoderSpec
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import build_layered_optimizer, build_optimizer
from ttc.models.weights import Loaded, load_weights
from ttc.run.roles import Role


def add_weights(add: Callable[..., object]) -> None:
    """Add the weights that pretraining starts from."""
    add(
        "--weights",
        role=Role.RESULT,
        metavar="FILE|default",
        help="weights to start from: default (imagenet is another word for it) takes those that torchvision or timm "
        "publish, from their caches if they are there; a file (.pt, .pth, .ckpt, .bin, .safetensors) may be a "
        "checkpoint of another run, data set or project; leave it out to train from scratch, as in the paper",
    )
    add(
        "--allow-missing-weights",
        role=Role.RESULT,
        action="store_true",
        help="warn where a file of weights lacks tensors of the encoder, or has more, instead of refusing it",
    )
    add(
        "--normalise",
        role=Role.RESULT,
        choices=("weights", "data"),
        help="subtract and divide by the mean and standard deviation that the weights were trained with, or those of "
        "the training images; the default is weights where these name them; data when your images look unlike theirs "
        "and much is trained",
    )


def add_layers(parser: Parser) -> None:
    """Add which layers of the encoder learn, how fast, and with how much memory."""
    add = parser.add_argument_group("layers of the encoder").add_argument
    add(
        "--freeze-encoder",
        role=Role.RESULT,
        action="store_true",
        help="train the heads alone; parameters and BatchNorm statistics of the encoder stay, which is verified; "
        "for few images and good weights",
    )
    add(
        "--freeze-until",
        role=Role.RESULT,
        metavar="LAYER",
        help="keep the encoder's layers from the first up to and including this one, any module by its name, such as "
        "layer2 of a ResNet, features.5 of a ConvNeXt, blocks.7 of a ViT or layers.3 of a convnet; helps with few "
        "images",
    )
    add(
        "--encoder-lr",
        role=Role.RESULT,
        type=real(0, above=True),
        metavar="LR",
        help="peak learning rate of the encoder, while --lr is that of the heads; the default is --lr, but a tenth of "
        "it in finetune.py without --from-scratch, which keeps what was learned",
    )
    add(
        "--layer-decay",
        role=Role.RESULT,
        type=real(0, 1, above=True),
        default=1.0,
        before=1.0,
        metavar="F",
        help="the learning rate falls by this factor from each block of the encoder to the one before it; 0.65 to 0.8 "
        "keeps the early layers of a pretrained ViT or ConvNeXt; 1 is the same rate for all",
    )
    add(
        "--drop-path",
        role=Role.RESULT,
        type=real(0, 0.9),
        default=0.0,
        before=0.0,
        metavar="P",
        help="probability, rising to this in the last block, that a block is skipped in training; 0.1 to 0.2 against "
        "overfitting when a whole ViT or ConvNeXt is trained",
    )
    add(
        "--grad-checkpointing",
        role=Role.RESULT,
        action="store_true",
        help="keep only the inputs of the encoder's blocks and compute the rest again in the backward pass: far less "
        "memory for a third more computing, for large encoders; with --micro-batch-size the loss is still that of the "
        "whole batch",
    )


def refuse_idle_layers(parser: Parser, args: Namespace) -> None:
    """End with exit code 2 where a flag about layers can have no effect."""
    if not args.freeze_encoder:
        return
    idle = {"freeze_until": None, "encoder_lr": None, "layer_decay": 1.0, "drop_path": 0.0, "grad_checkpointing": False}
    for name, unused in idle.items():
        if getattr(args, name) != unused:
            parser.refuse(f"--{name.replace('_', '-')} has no effect with --freeze-encoder; leave one of them out")


def start_encoder(args: Namespace, encoder: nn.Module, spec: EncoderSpec) -> Loaded | None:
    """Load the weights that the flags name, if any, and return which of them fitted.

    Raises:
        ValueError: they cannot be had or do not fit, or name no mean and std although these are wanted.
    """
    if args.weights is None:
        if args.normalise == "weights" or args.allow_missing_weights:
            flag = "--normalise weights" if args.normalise else "--allow-missing-weights"
            raise ValueError(f"{flag} goes with --weights; name them, or leave it out")
        return None
    loaded = load_weights(encoder, spec, args.weights, allow_missing=args.allow_missing_weights)
    if args.normalise == "weights" and loaded.normalisation is None:
        raise ValueError(f"--normalise weights: {args.weights} names no mean and std; use --normalise data")
    return loaded


def freeze(args: Namespace, network: PretrainNetwork) -> None:
    """Freeze what the flags name."""
    if args.freeze_encoder or args.freeze_until is not None:
        network.freeze(None if args.freeze_encoder else args.freeze_until)


def optimizer_of(args: Namespace, network: PretrainNetwork, objective: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer: one rate for all, or slower layers."""
    if args.encoder_lr is None and args.layer_decay == 1:
        return build_optimizer(args.optimizer, (network, objective), lr=args.lr, weight_decay=args.weight_decay)
    heads = [objective] if network.projection is None else [network.projection, objective]
    return build_layered_optimizer(
        args.optimizer,
        network.encoder,
        heads,
        lr=args.lr,
        encoder_lr=args.encoder_lr or args.lr,
        layer_decay=args.layer_decay,
        weight_decay=args.weight_decay,
    )
