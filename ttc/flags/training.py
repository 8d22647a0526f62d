"""What is trained on what: data, augmentation, network, objective, optimisation."""

from __future__ import annotations

from collections.abc import Callable

from ttc.augment import PRESETS
from ttc.cli import Parser, real, whole
from ttc.datasets import DATASETS
from ttc.losses import METHODS
from ttc.samplers import SAMPLERS


def add_data(parser: Parser) -> None:
    """Add what names the images and the two classes."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--dataset",
        default="digits",
        metavar="NAME",
        help=f"where the images come from: {', '.join(DATASETS)}",
    )
    add(
        "--data-root",
        metavar="PATH",
        help="folder of the dataset (for csv: the table itself); change it when the data are not in the default place",
    )
    add(
        "--classes",
        nargs="+",
        metavar="LABELS",
        help="one word per class, in label order: source labels or names joined by commas, such as 0,1,2 3,4; "
        "labels not named are left out",
    )
    add(
        "--positive-classes",
        metavar="LABELS",
        help="source labels or names joined by commas that form class 1 of a multi-class set; the rest is class 0",
    )
    add(
        "--one-vs-rest",
        metavar="LABEL",
        help="the one source label or name that forms class 1 of a multi-class set; short for --positive-classes",
    )
    add(
        "--class-ratios",
        nargs="+",
        type=real(0, 1, above=True),
        metavar="SHARE",
        help="share of each class in training, summing to 1; the total stays the same for every ratio; "
        "the default is the data as they are, but 0.97 0.03 for digits, which has no rare class",
    )
    add(
        "--train-samples",
        type=whole(1),
        metavar="N",
        help="most training samples in all; lower it for a quick trial or for a total common to several datasets",
    )
    _add_image_flags(add)


def _add_image_flags(add: Callable[..., object]) -> None:
    add(
        "--minority-class",
        nargs="+",
        type=whole(0),
        metavar="LABEL",
        help="label of the rare class, only needed where classes are equally large, otherwise it is counted; "
        "several labels with three or more classes",
    )
    add(
        "--image-size",
        type=whole(4),
        metavar="PX",
        help="side of the views; smaller is faster; the default is the data's own size, 224 for image files",
    )
    add(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="what to do with an unreadable image: end the run, or leave it out and list it "
        "(all files are then read once first)",
    )


def add_augmentation(parser: Parser) -> None:
    """Add how views are made."""
    group = parser.add_argument_group("augmentation")
    add = group.add_argument
    add(
        "--augmentation",
        choices=tuple(PRESETS),
        help="preset of random changes; the default is digits for digits, medical for grey images, else natural",
    )
    add(
        "--crop-scale",
        nargs=2,
        type=real(0, 1, above=True),
        metavar=("MIN", "MAX"),
        help="share of the image's area that a random crop keeps; raise MIN when the finding sits at the border",
    )
    add(
        "--minority-cutmix",
        type=real(0, 1),
        default=0.0,
        metavar="AREA",
        help="largest share of a rare image that a patch of a common one covers; 0.4 helps below some 100 rare images",
    )
    add(
        "--jitter-strength",
        type=real(0),
        default=1.0,
        metavar="X",
        help="factor on all colour changes of the preset; 0 where grey values carry the diagnosis",
    )


def add_model(parser: Parser) -> None:
    """Add the network."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--encoder",
        metavar="NAME",
        help="convnet-wN (small, for 8-64 px on a CPU, N = width) or a torchvision ResNet such as resnet50; "
        "the default goes by the image size",
    )
    add(
        "--stem",
        choices=("auto", "imagenet", "small"),
        default="auto",
        help="first layers of a ResNet; auto takes the small one up to 64 px",
    )
    add(
        "--projection-dim",
        type=whole(2),
        default=128,
        metavar="D",
        help="length of the embeddings that the contrastive loss compares",
    )
    add(
        "--weights",
        metavar="FILE|imagenet",
        help="weights to start from; leave it out to train from scratch, as in the paper",
    )


def add_method(parser: Parser) -> None:
    """Add the objective and its settings."""
    group = parser.add_argument_group("method")
    add = group.add_argument
    add(
        "--method",
        choices=tuple(METHODS),
        default="supmin",
        help="what is trained; supcon collapses on rare classes, supmin and supproto are the paper's cures, "
        "simclr ignores labels, the ce family trains a classifier",
    )
    add(
        "--temperature",
        type=real(0, above=True),
        metavar="T",
        help="scale of the cosines; lower looks at harder negatives; the default is the method's own, mostly 0.07",
    )
    add(
        "--base-temperature",
        type=real(0, above=True),
        metavar="T",
        help="the loss is multiplied by temperature / base temperature; the default is no factor",
    )
    add(
        "--ratio-supervised-majority",
        type=real(0, 1),
        metavar="R",
        help="supmin: share of the majority that gets class positives; 0 is supmin, 1 is supcon",
    )
    add(
        "--margin",
        nargs="+",
        type=real(-4, 4),
        metavar="EPS",
        help="supproto: a row is pulled until its own prototype leads by this margin; one value, or one per class",
    )
    _add_combinations(add)


def _add_combinations(add: Callable[..., object]) -> None:
    add(
        "--ce-weight",
        type=real(0),
        default=0.0,
        metavar="W",
        help="weight of a cross-entropy term on a linear head over the features; 1 for one-stage training",
    )
    add(
        "--instance-weight",
        type=real(0, 1),
        default=0.0,
        metavar="W",
        help="share of instance discrimination (NT-Xent) mixed into a supervised objective; it counteracts a collapse",
    )
    add(
        "--prototype-weight",
        type=real(0),
        default=0.0,
        metavar="W",
        help="supmin: weight of supproto's pull towards fixed prototypes",
    )
    add(
        "--method-settings",
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
        type=whole(1),
        default=128,
        metavar="B",
        help="samples of the GLOBAL batch, over all devices; larger batches hold more rare images",
    )
    add(
        "--batch-sampler",
        choices=SAMPLERS,
        default="shuffle",
        help="who meets whom: shuffle, stratified (class shares in every batch) or balanced "
        "(equal classes, rare images repeat); balanced helps every supervised method on rare classes",
    )
    add(
        "--min-minority-per-batch",
        type=whole(0),
        default=0,
        metavar="K",
        help="least rare images in a batch; repeats them only as much as needed",
    )


def add_optimizer(add: Callable[..., object]) -> None:
    """Add the optimizer."""
    add(
        "--optimizer",
        choices=("sgd", "adam", "adamw"),
        default="sgd",
        help="sgd with momentum 0.9 as in the paper; adamw for networks without BatchNorm",
    )
    add(
        "--lr",
        type=real(0, above=True),
        default=0.25,
        metavar="LR",
        help="peak learning rate; lower it when a supervised loss sticks at its collapse value",
    )
    add(
        "--weight-decay",
        type=real(0),
        default=1e-4,
        metavar="WD",
        help="pull of the weights towards 0; raise it for small data",
    )
    add(
        "--warmup-epochs",
        type=real(0),
        default=2,
        metavar="E",
        help="epochs in which the learning rate rises from a tenth; lengthen it for large batches",
    )
    add(
        "--clip-gradient-norm",
        type=real(0, above=True),
        metavar="NORM",
        help="largest norm of the gradient; use it when the loss jumps",
    )
