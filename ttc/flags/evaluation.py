"""What is evaluated, and how."""

from __future__ import annotations

from ttc.evaluation.probe import PROBES
from ttc.flags.parser import Parser, real, whole
from ttc.run.roles import Role


def add_checkpoint(parser: Parser, *, required: bool) -> None:
    """Add what is evaluated."""
    add = parser.add_argument_group("data").add_argument
    add(
        "--checkpoint",
        role=Role.WHERE,
        required=required,
        metavar="FILE",
        help="checkpoint of pretrain.py; it names data, splits, normalisation and architecture",
    )
    add("--data-root", role=Role.WHERE, metavar="PATH", help="where the data lie now, if they have moved since the run")


def add_evaluation_set(parser: Parser) -> None:
    """Add which samples are evaluated."""
    parser.add_argument_group("evaluation").add_argument(
        "--class-balance",
        role=Role.RESULT,
        choices=("natural", "balanced"),
        default="natural",
        help="evaluate the whole split, or equally many samples of each class (as the paper does for iNaturalist)",
    )


def add_evaluation_output(parser: Parser) -> None:
    """Add where the result goes."""
    parser.add_argument_group("output").add_argument(
        "--output",
        role=Role.WHERE,
        metavar="FOLDER",
        help="result folder; the default is one named after the script in the run folder",
    )


def add_heads(parser: Parser) -> None:
    """Add what linear_eval.py puts on the encoder."""
    add = parser.add_argument_group("head").add_argument
    add(
        "--head",
        role=Role.RESULT,
        nargs="+",
        choices=("linear", "knn", "prototype", "own"),
        default=["linear"],
        help="what is tested: a linear probe, the nearest neighbours, the nearest prototype (supproto's own "
        "prediction), or the classifier that the method itself trained (ce family, bcl, paco)",
    )
    add(
        "--neighbours",
        role=Role.RESULT,
        type=whole(1),
        metavar="K",
        help="how many nearest samples, by cosine, vote with --head knn: 20, or all where there are fewer, if not "
        "given; take fewer for small or rare classes",
    )
    add(
        "--neighbour-votes",
        role=Role.RESULT,
        choices=("similarity", "equal"),
        default="similarity",
        help="a neighbour's vote counts exp(cosine / 0.07), or one; equal votes give many tied scores",
    )
    add(
        "--folds",
        role=Role.RESULT,
        type=whole(3),
        metavar="K",
        help="for small sets, cross-validate the probe, no group in two folds: on validation and test together (and on "
        "train if the encoder is untrained); in turn one fold tests, one chooses, the others teach",
    )


def add_probe(parser: Parser) -> None:
    """Add how linear_eval.py probes."""
    add = parser.add_argument_group("probe").add_argument
    add(
        "--protocol",
        role=Role.RESULT,
        choices=("logistic", "paper"),
        default="logistic",
        help="logistic regression on features extracted once, or the paper's linear layer (Adam, augmented views)",
    )
    add(
        "--probes",
        role=Role.RUN,
        nargs="+",
        choices=PROBES,
        help="what the probe learns from: all training samples, as many per class as the minority has, or a "
        "balanced fraction of the pool; the default is all three, and fraction with --protocol paper, but none that "
        "would learn from fewer than 10 images of each class",
    )
    add(
        "--probe-fraction",
        role=Role.RESULT,
        type=real(0, 1, above=True),
        default=0.01,
        metavar="F",
        help="share of the pool for the fraction probe; raise it for small datasets",
    )
    add(
        "--probe-seeds",
        role=Role.RESULT,
        type=whole(1),
        default=5,
        metavar="N",
        help="draws of the balanced subsets; more give a steadier mean",
    )
    add(
        "--layers",
        role=Role.RUN,
        nargs="+",
        choices=("encoder", "projection"),
        default=["encoder", "projection"],
        help="which output is probed, the first one for predictions.csv; the encoder's is the usual one to report",
    )


def add_clinical(parser: Parser) -> None:
    """Add how predictions are evaluated."""
    add = parser.add_argument_group("classification metrics").add_argument
    add(
        "--positive-class",
        role=Role.RESULT,
        type=whole(0),
        metavar="LABEL",
        help="class that AUROC, AUPRC, F1 and sensitivity are about; the default is the minority",
    )
    add(
        "--bootstrap",
        role=Role.RESULT,
        type=whole(0),
        default=2000,
        metavar="DRAWS",
        help="draws for the 95 %% intervals; 0 leaves them out",
    )
    add(
        "--deploy-prevalence",
        role=Role.RESULT,
        nargs="+",
        type=real(0, 0.999999, above=True),
        metavar="P",
        help="share of the positive class where the model is to be used, for PPV, NPV and AUPRC there; give it when "
        "the test split is richer in positives than practice",
    )


def add_metrics(parser: Parser) -> None:
    """Add what compute_metrics.py measures."""
    add = parser.add_argument_group("metrics").add_argument
    add(
        "--embeddings",
        role=Role.WHERE,
        metavar="FILE.npz",
        help="instead of a checkpoint: arrays embeddings [V, N, D] (V >= 2 views) and labels [N], from any encoder",
    )
    add(
        "--split",
        role=Role.RESULT,
        choices=("train", "val", "test"),
        default="test",
        help="which samples are embedded; train shows what the loss saw",
    )
    add(
        "--views",
        role=Role.RESULT,
        type=whole(2),
        default=5,
        metavar="V",
        help="augmented views per sample; 5 as in the paper, and SAA depends on it",
    )
    add(
        "--max-samples",
        role=Role.RESULT,
        type=whole(2),
        default=2000,
        metavar="N",
        help="most samples, drawn with the split's class shares; SAA falls as it grows, so keep it when you compare",
    )
    add(
        "--radius",
        role=Role.RESULT,
        type=real(0, 1, above=True),
        default=0.05,
        metavar="R",
        help="share of all rows that counts as the neighbourhood for CAC; 0.05 as in the paper",
    )
    add(
        "--peu-draws",
        role=Role.RESULT,
        type=whole(0),
        default=5,
        metavar="N",
        help="draws of random points for PEU, by far the slowest metric; 0 leaves it out",
    )
    add(
        "--scatter",
        role=Role.RUN,
        choices=("pca", "tsne", "none"),
        default="pca",
        help="the figure's flat picture; tsne shows clusters but takes a minute; none draws no figure, for sweeps",
    )
    add(
        "--projector",
        role=Role.RUN,
        action="store_true",
        help="also write embeddings with image sprites for TensorBoard's projector",
    )


def add_compare(parser: Parser) -> None:
    """Add in what the rows of one table or figure may differ."""
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="FLAG",
        help="further flags of pretrain.py, without dashes, in which rows may differ, such as batch-size encoder",
    )
