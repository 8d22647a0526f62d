"""How training works: network, objective, optimisation."""

from __future__ import annotations

from collections.abc import Callable

from ttc.batches.samplers import SAMPLERS
from ttc.flags.encoder import add_weights
from ttc.flags.parser import Given, Namespace, Parser, real, whole
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
        help="convnet-wN (small, for 8-64 px on a CPU, N = width), any classification model of torchvision, such as "
        "resnet50, convnext_tiny or vit_b_16, or timm/NAME (pip install timm); the default goes by the image size",
    )
    add(
        "--stem",
        role=Role.RESULT,
        choices=("auto", "imagenet", "small"),
        default="auto",
        help="first layers of a convolutional network: its own, or one with half the stride, without max pooling in a "
        "ResNet; auto takes the small one up to 64 px",
    )
    add(
        "--projection-dim",
        role=Role.RESULT,
        type=whole(2),
        default=128,
        metavar="D",
        help="dimension of the projection that the contrastive loss compares; the usual value is 128, small data "
        "rarely gain from more",
    )
    add(
        "--projection-batchnorm",
        role=Role.RESULT,
        action="store_true",
        help="BatchNorm in the projection head, as in SimCLR; use it to reproduce such results, the paper's head "
        "has none",
    )
    add_weights(add)


def add_method(parser: Parser) -> None:
    """Add the objective and its settings."""
    group = parser.add_argument_group("method")
    add = group.add_argument
    add(
        "--method",
        role=Role.COMPARED,
        choices=tuple(METHODS),
        default="supmin",
        help="objective to train with: supcon collapses on rare classes, supmin and supproto are the paper's "
        "remedies, simclr ignores labels, the ce family trains a classifier",
    )
    add(
        "--temperature",
        role=Role.COMPARED,
        type=real(0, above=True),
        metavar="T",
        help="temperature of the cosine similarities; lower values put more weight on hard negatives; the default "
        "is the method's own, mostly 0.07",
    )
    add(
        "--base-temperature",
        role=Role.COMPARED,
        type=real(0, above=True),
        metavar="T",
        help="scales the loss by temperature / base temperature, as in the reference code of SupCon; set it to "
        "reproduce such results; the default is no scaling",
    )
    add(
        "--ratio-supervised-majority",
        role=Role.COMPARED,
        type=real(0, 1),
        metavar="R",
        help="supmin: fraction of the majority samples that get positives of their class; 0 is supmin, 1 is "
        "supcon; values between interpolate",
    )
    add(
        "--margin",
        role=Role.COMPARED,
        nargs="+",
        type=real(-4, 4),
        metavar="EPS",
        help="supproto: margin by which a sample's own prototype must lead before the attraction stops; one value,"
        " or one per class; raise it for the class that is confused more",
    )
    _add_combinations(add)


def _add_combinations(add: Callable[..., object]) -> None:
    add(
        "--ce-weight",
        role=Role.ADDED,
        type=real(0),
        default=0.0,
        metavar="W",
        help="weight of an added cross-entropy loss on a linear classifier; use 1 to train encoder and classifier "
        "in one stage",
    )
    add(
        "--instance-weight",
        role=Role.ADDED,
        type=real(0, 1),
        default=0.0,
        metavar="W",
        help="weight of instance discrimination (NT-Xent) mixed into a supervised objective; raise it against collapse",
    )
    add(
        "--prototype-weight",
        role=Role.ADDED,
        type=real(0),
        default=0.0,
        metavar="W",
        help="supmin: weight of supproto's attraction to fixed prototypes; raise it when the classes do not separate",
    )
    add(
        "--method-settings",
        role=Role.COMPARED,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="further settings of the method, such as gamma=2 for focal or k=6 for kcl; set them to reproduce a "
        "paper; docs/methods.md lists them",
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
        help="passes over the training samples (the balanced sampler takes as many steps); 0 leaves the encoder "
        "untrained, the baseline of every comparison; on csv, imagefolder and arrays left out for the measured number "
        "of steps, see docs/budget.md",
    )
    add_steps(add)
    add_optimizer(add)
    add(
        "--sam-rho",
        role=Role.COMPARED,
        type=real(0, above=True),
        metavar="R",
        help="sharpness-aware minimisation: step by the gradient at the worst point within this distance, such as "
        "0.05, for twice the computing; try it where the network overfits the rare images",
    )


def add_steps(add: Callable[..., object]) -> None:
    """Add the other way to say how long a run takes."""
    add(
        "--steps",
        role=Role.COMPARED,
        type=whole(1),
        metavar="N",
        help="optimizer steps, rounded up to whole epochs, in place of --epochs; small data sets need as many steps as "
        "larger ones, and so more epochs",
    )


def choose_length(parser: Parser, given: Given) -> None:
    """Let --steps or --epochs of the command line win over the other of a recipe.

    Exit code 2 where both come from the same place.
    """
    values, sources = given.values, given.sources
    if values["steps"] is None:
        return
    if sources["epochs"] == "default":
        values["epochs"] = None
        return
    named = {name for name in ("epochs", "steps") if sources[name] == "command line"}
    if len(named) != 1:
        parser.refuse(f"--steps {values['steps']} and --epochs {values['epochs']} both say how long; leave one out")
    values["epochs" if named == {"steps"} else "steps"] = None


def add_batches(add: Callable[..., object]) -> None:
    """Add what a batch holds."""
    add(
        "--batch-size",
        role=Role.RESULT,
        type=whole(1),
        default=128,
        metavar="B",
        help="samples of the global batch, over all devices; raise it when batches hold too few minority samples; "
        "when pretraining on csv, imagefolder and arrays left out for 64 up to 10,000 images",
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
        help="how batches are composed: shuffle, stratified (class proportions in every batch) or balanced (equal "
        "class sizes, minority images repeat); balanced helps every supervised method on rare classes; "
        "methods that weight by class frequency use the frequency in the batches",
    )
    add(
        "--min-minority-per-batch",
        role=Role.ADDED,
        type=whole(0),
        default=0,
        metavar="K",
        help="minimum number of minority samples in a batch; they are repeated only as often as needed; raise it "
        "when the plan warns of too few",
    )


def add_optimizer(add: Callable[..., object]) -> None:
    """Add the optimizer."""
    add(
        "--optimizer",
        role=Role.RESULT,
        choices=("sgd", "adam", "adamw"),
        default="sgd",
        help="sgd with momentum 0.9, as in the paper; use adamw for networks without BatchNorm",
    )
    add(
        "--lr",
        role=Role.RESULT,
        type=real(0, above=True),
        default=0.25,
        metavar="LR",
        help="peak learning rate; lower it when a supervised loss stays at its collapse value",
    )
    add(
        "--weight-decay",
        role=Role.RESULT,
        type=real(0),
        default=1e-4,
        metavar="WD",
        help="L2 penalty on the weights; raise it for small data sets",
    )
    add(
        "--warmup-epochs",
        role=Role.RESULT,
        type=real(0),
        default=2,
        metavar="E",
        help="epochs over which the learning rate rises from a tenth of its peak; use more for large batches",
    )
    add(
        "--clip-gradient-norm",
        role=Role.RESULT,
        type=real(0, above=True),
        metavar="NORM",
        help="largest norm of the gradient, which is scaled down to it; use it when the loss has spikes",
    )
    add(
        "--ema-decay",
        role=Role.COMPARED,
        type=real(0, 1, above=True),
        metavar="D",
        help="evaluate an exponential moving average of the weights with this decay, which rises to it as "
        "(1 + steps) / (10 + steps); 0.99 for short runs, 0.999 from thousands of steps on; against noise of the last "
        "steps",
    )
    add(
        "--average-from",
        role=Role.COMPARED,
        type=real(0, 0.99),
        metavar="SHARE",
        help="evaluate the mean of the weights after each step from this share of the run on, such as 0.75, in place "
        "of --ema-decay",
    )


def refuse_two_averages(parser: Parser, args: Namespace) -> None:
    """End with exit code 2 where both ways to average the weights are asked for."""
    if args.ema_decay is not None and args.average_from is not None:
        parser.refuse(
            f"--ema-decay {args.ema_decay:g} and --average-from {args.average_from:g} are two averages of the weights; "
            "leave one out"
        )
