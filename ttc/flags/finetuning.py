"""How finetune.py trains: what starts, what is frozen, how fast each part learns, which epoch is kept.

Flags, defaults that follow from other flags, contradictions.
"""

from __future__ import annotations

from ttc import distributed
from ttc.flags.encoder import add_layers, refuse_idle_layers
from ttc.flags.evaluation import add_clinical
from ttc.flags.parser import Given, Namespace, Parser, real, whole
from ttc.flags.training import add_batches, add_optimizer, add_steps, refuse_two_averages
from ttc.models.description import Description
from ttc.run.roles import Role
from ttc.training.budget import batch_size
from ttc.training.early_stopping import SELECTORS
from ttc.training.finetuning import LOSSES


def add_finetuning(parser: Parser) -> None:
    """Add everything that is particular to fine-tuning, and the batches and the optimizer."""
    _add_network(parser)
    add_layers(parser)
    add = parser.add_argument_group("optimisation").add_argument
    add_batches(add)
    add(
        "--epochs",
        role=Role.COMPARED,
        type=whole(1),
        default=30,
        metavar="E",
        help="largest number of passes over the training samples, including the linear phase; use the same number "
        "for --from-scratch",
    )
    add_steps(add)
    add_optimizer(add)
    parser.set_defaults(lr=0.1)
    _add_objective(parser)
    _add_selection(parser)
    add_clinical(parser)


def _add_network(parser: Parser) -> None:
    add = parser.add_argument_group("fine-tuning").add_argument
    add(
        "--from-scratch",
        role=Role.RESULT,
        action="store_true",
        help="train the same network on the same data for as long, but from random weights: the baseline of "
        "fine-tuning",
    )
    add(
        "--linear-epochs",
        role=Role.RESULT,
        type=whole(0),
        default=0,
        metavar="E",
        help="train only the head in the first E epochs, so that a random head does not damage the encoder",
    )


def _add_objective(parser: Parser) -> None:
    add = parser.add_argument_group("objective").add_argument
    add(
        "--loss",
        role=Role.RESULT,
        choices=LOSSES,
        help="loss of the classifier; the default is weighted-ce, or ce with --batch-sampler balanced, whose "
        "batches already correct the imbalance",
    )
    add(
        "--class-weights",
        role=Role.RESULT,
        nargs="+",
        type=real(0, above=True),
        metavar="W",
        help="weight of each class, in label order, instead of the inverse class frequency; set it when errors of "
        "one class cost more; for weighted-ce and focal",
    )


def _add_selection(parser: Parser) -> None:
    add = parser.add_argument_group("selection").add_argument
    add(
        "--select-by",
        role=Role.RESULT,
        choices=SELECTORS,
        default="auroc",
        help="validation metric that selects the epoch; use loss (cross-entropy) where probabilities matter",
    )
    add(
        "--patience",
        role=Role.RESULT,
        type=whole(0),
        default=10,
        metavar="E",
        help="stop after this many epochs without improvement, counted after the linear phase; 0 trains for all "
        "--epochs",
    )


def complete_finetuning(parser: Parser, args: Namespace) -> dict[str, object]:
    """Fill in the flags of finetune.py that follow from others; end with exit code 2 where they contradict each other.

    Returns:
        The flags that were filled in, for args.json.
    """
    refuse_idle_layers(parser, args)
    refuse_two_averages(parser, args)
    if args.freeze_encoder and args.linear_epochs:
        parser.refuse("--linear-epochs has no effect with --freeze-encoder; leave one of them out")
    if args.epochs is not None and args.linear_epochs >= args.epochs:  # else --steps says how many
        parser.refuse(f"--linear-epochs {args.linear_epochs} leaves no epoch of {args.epochs}; use --freeze-encoder")
    filled_in: dict[str, object] = {}
    if args.loss is None:
        filled_in["loss"] = "ce" if args.batch_sampler == "balanced" and not args.class_weights else "weighted-ce"
    if args.encoder_lr is None:
        filled_in["encoder_lr"] = args.lr if args.from_scratch else args.lr / 10
    vars(args).update(filled_in)
    if args.class_weights and args.loss not in ("weighted-ce", "focal"):
        parser.refuse(f"--class-weights has no effect with --loss {args.loss}; use weighted-ce or focal")
    return filled_in


def fit_batch(args: Namespace, given: Given, train: int) -> list[str]:
    """Lower the default batch size where the training set does not fill it.

    Args:
        args: changed in place.
        given: tells whether the user named one.
        train: training images.

    Returns:
        A line for the plan, where it was lowered; args.json holds the flags as they were given.
    """
    if given.sources["batch_size"] != "default" or args.batch_size <= train:
        return []
    args.batch_size, why = batch_size(train, distributed.world_size())
    return [f"--batch-size {args.batch_size}: {why}"]


def check_classes(args: Namespace, description: Description) -> None:
    """Refuse flags of finetune.py that do not fit the classes.

    Raises:
        ValueError: one does not.
    """
    if len(description.class_names) > 2 and args.select_by == "auprc":
        raise ValueError("--select-by auprc is defined for two classes only; use auroc")
    if len(description.class_names) > 2 and args.deploy_prevalence:
        raise ValueError("--deploy-prevalence is defined for two classes only; leave it out")
    if args.minority_cutmix and description.minority_class is None:
        raise ValueError(f"--minority-cutmix {args.minority_cutmix:g}: no class is the minority; leave it out")
