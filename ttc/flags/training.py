"""How training works: network, objective, optimisation."""

from __future__ import annotations

from collections.abc import Callable

from ttc.batches.samplers import SAMPLERS
from ttc.flags.parser import Parser, real, whole
from ttc.losses import METHODS
from ttc.run.roles import Role


def add_model(parser: Parser) -> None:
    """Add the network."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--encoder",
        role=Role.RESULT,
        metavar="NAME",
        help="convnet-wN (small, for 8-64 px on a CPU, N = width) or a torchvision ResNet such as resnet50; "
        "the default goes by the image size",
    )
    add(
        "--stem",
        role=Role.RESULT,
        choices=("auto", "imagenet", "small"),
        default="auto",
        help="first layers of a ResNet; auto takes the small one up to 64 px",
    )
    add(
        "--projection-dim",
        role=Role.RESULT,
        type=whole(2),
        default=128,
        metavar="D",
        help="length of the embeddings that the contrastive loss compares",
    )
    add(
        "--projection-batchnorm",
        role=Role.RESULT,
        action="store_true",
        help="BatchNorm in the projection head, as in SimCLR; the paper's head has none",
    )
    add(
        "--weights",
        role=Role.RESULT,
        metavar="FILE|imagenet",
        help="weights to start from; leave it out to train from scratch, as in the paper",
    )


def add_method(parser: Parser) -> None:
    """Add the objective and its settings."""
    group = parser.add_argument_group("method")
    add = group.add_argument
    add(
        "--method",
        role=Role.COMPARED,
        choices=tuple(METHODS),
        default="supmin",
        help="what is trained; supcon collapses on rare classes, supmin and supproto are the paper's cures, "
        "simclr ignores labels, the ce family trains a classifier",
    )
    add(
        "--temperature",
        role=Role.COMPARED,
        type=real(0, above=True),
        metavar="T",
        help="scale of the cosines; lower looks at harder negatives; the default is the method's own, mostly 0.07",
    )
    add(
        "--base-temperature",
        role=Role.COMPARED,
        type=real(0, above=True),
        metavar="T",
        help="the loss is multiplied by temperature / base temperature; the default is no factor",
    )
    add(
        "--ratio-supervised-majority",
        role=Role.COMPARED,
        type=real(0, 1),
        metavar="R",
        help="supmin: share of the majority that gets class positives; 0 is supmin, 1 is supcon",
    )
    add(
        "--margin",
        role=Role.COMPARED,
        nargs="+",
        type=real(-4, 4),
        metavar="EPS",
        help="supproto: a row is pulled until its own prototype leads by this margin; one value, or one per class",
    )
    _add_combinations(add)


def _add_combinations(add: Callable[..., object]) -> None:
    add(
        "--ce-weight",
        role=Role.ADDED,
        type=real(0),
        default=0.0,
        metavar="W",
        help="weight of a cross-entropy term on a linear head over the features; 1 for one-stage training",
    )
    add(
        "--instance-weight",
        role=Role.ADDED,
        type=real(0, 1),
        default=0.0,
        metavar="W",
        help="share of instance discrimination (NT-Xent) mixed into a supervised objective; it counteracts a collapse",
    )
    add(
        "--prototype-weight",
        role=Role.ADDED,
        type=real(0),
        default=0.0,
        metavar="W",
        help="supmin: weight of supproto's pull towards fixed prototypes",
    )
    add(
        "--method-settings",
        role=Role.COMPARED,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="further settings of the method, such as gamma=2 for focal or k=6 for kcl; docs/methods.md lists them",
    )


def add_optimisation(parser: Parser) -> None:
    """Add batches and the optimizer."""
    add = parser.add_argument_group("optimisation").add_argument
    add_batches(add)
    add(
        "--epochs",
        role=Role.COMPARED,
        type=whole(0),
        default=30,
        metavar="E",
        help="passes over the training samples; the balanced sampler takes as many steps; "
        "0 leaves the encoder untrained, the baseline of every comparison",
    )
    add_optimizer(add)


def add_batches(add: Callable[..., object]) -> None:
    """Add what a batch holds."""
    add(
        "--batch-size",
        role=Role.RESULT,
        type=whole(1),
        default=128,
        metavar="B",
        help="samples of the GLOBAL batch, over all devices; larger batches hold more rare images",
    )
    add(
        "--micro-batch-size",
        role=Role.RESULT,
        type=whole(1),
        metavar="M",
        help="samples, over all devices, that are in the network at a time; lower it when a batch does not fit into "
        "memory: the contrastive loss stays that of --batch-size, for a third more computing; "
        "BatchNorm, if there is any, then normalises over M samples; the default is the whole batch",
    )
    add(
        "--batch-sampler",
        role=Role.COMPARED,
        choices=SAMPLERS,
        default="shuffle",
        help="who meets whom: shuffle, stratified (class shares in every batch) or balanced "
        "(equal classes, rare images repeat); balanced helps every supervised method on rare classes; methods that "
        "weigh by class frequency use the frequency in the batches",
    )
    add(
        "--min-minority-per-batch",
        role=Role.ADDED,
        type=whole(0),
        default=0,
        metavar="K",
        help="least rare images in a batch; repeats them only as much as needed",
    )


def add_optimizer(add: Callable[..., object]) -> None:
    """Add the optimizer."""
    add(
        "--optimizer",
        role=Role.RESULT,
        choices=("sgd", "adam", "adamw"),
        default="sgd",
        help="sgd with momentum 0.9 as in the paper; adamw for networks without BatchNorm",
    )
    add(
        "--lr",
        role=Role.RESULT,
        type=real(0, above=True),
        default=0.25,
        metavar="LR",
        help="peak learning rate; lower it when a supervised loss sticks at its collapse value",
    )
    add(
        "--weight-decay",
        role=Role.RESULT,
        type=real(0),
        default=1e-4,
        metavar="WD",
        help="pull of the weights towards 0; raise it for small data",
    )
    add(
        "--warmup-epochs",
        role=Role.RESULT,
        type=real(0),
        default=2,
        metavar="E",
        help="epochs in which the learning rate rises from a tenth; lengthen it for large batches",
    )
    add(
        "--clip-gradient-norm",
        role=Role.RESULT,
        type=real(0, above=True),
        metavar="NORM",
        help="largest norm of the gradient; use it when the loss jumps",
    )
