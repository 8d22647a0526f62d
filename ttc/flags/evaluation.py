"""What is evaluated, and how."""

from __future__ import annotations

from collections.abc import Callable

from ttc.evaluation.decoupled import NATURAL_HEADS
from ttc.evaluation.probe import PROBES
from ttc.flags.parser import Parser, real, whole
from ttc.metrics.clinic.calibrators import METHODS
from ttc.metrics.clinical import DECISION_THRESHOLDS
from ttc.run.roles import Role


def add_checkpoint(parser: Parser, *, required: bool) -> None:
    """Add what is evaluated."""
    add = parser.add_argument_group("data").add_argument
    add(
        "--checkpoint",
        role=Role.WHERE,
        required=required,
        metavar="FILE",
        help="checkpoint of pretrain.py, or its run folder; it names data, splits, normalisation and architecture",
    )
    add(
        "--data-root",
        role=Role.WHERE,
        metavar="PATH",
        help="where the data are now; set it if they have moved since the run",
    )


def add_embeddings(parser: Parser) -> None:
    """Add features as the alternative to a checkpoint."""
    parser.add_argument_group("data").add_argument(
        "--embeddings",
        role=Role.WHERE,
        metavar="FILE.npz",
        help="use the arrays features [N, F] (or embeddings), labels [N] and perhaps split, groups and ids of this "
        "file instead of a checkpoint; for encoders that were trained elsewhere",
    )


def add_evaluation_set(parser: Parser) -> None:
    """Add which samples are evaluated."""
    parser.add_argument_group("evaluation").add_argument(
        "--class-balance",
        role=Role.RESULT,
        choices=("natural", "balanced"),
        default="natural",
        help="evaluate the whole split, or equally many samples of each class; use balanced to compare with the "
        "paper's results on iNaturalist",
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
        choices=("linear", "knn", *NATURAL_HEADS, "prototype", "own"),
        default=["linear"],
        help="what is evaluated: a linear probe with balanced classes, the nearest neighbours, a linear probe that "
        "learns the natural class shares and is balanced afterwards (tau-norm, of use for three classes or more; "
        "logit-adjusted), the nearest prototype (supproto's own prediction), or the classifier that the method itself "
        "trained (own: ce family, bcl, paco, proco)",
    )
    add(
        "--neighbours",
        role=Role.RESULT,
        type=whole(1),
        metavar="K",
        help="number of nearest samples, by cosine similarity, that vote with --head knn; the default is 20, or "
        "all where there are fewer; use fewer for small or rare classes",
    )
    add(
        "--neighbour-votes",
        role=Role.RESULT,
        choices=("similarity", "equal"),
        default="similarity",
        help="a neighbour's vote counts exp(cosine / 0.07), or one; use equal to compare with plain kNN, which has"
        " many tied scores",
    )
    add(
        "--folds",
        role=Role.RESULT,
        type=whole(3),
        metavar="K",
        help="number of folds to cross-validate the probe alone with (scripts/make_manifest.py --folds: the whole "
        "experiment); validation and test samples (and training samples if the encoder is untrained) are divided, "
        "never within a group; each fold is tested once, another selects, the others train",
    )
    add(
        "--floor",
        role=Role.RUN,
        choices=("auto", "none"),
        default="auto",
        before="auto",
        help="also measure plain classifiers of the raw pixels (at most 32 px; linear models and SVMs on the pixels or "
        "on 50 principal components; validation chooses), which an encoder should clear; auto leaves them out where "
        "more than 25,000 images would be read and for features without images; none saves the seconds they take",
    )


def add_probe(parser: Parser) -> None:
    """Add how linear_eval.py probes."""
    add = parser.add_argument_group("probe").add_argument
    add(
        "--protocol",
        role=Role.RESULT,
        choices=("logistic", "paper"),
        default="logistic",
        help="logistic regression on features extracted once, or the paper's protocol (linear layer, Adam, "
        "augmented views); use paper to compare with its tables",
    )
    add(
        "--probes",
        role=Role.RUN,
        nargs="+",
        choices=PROBES,
        help="training samples of the probe: all, as many per class as the minority has, or a balanced fraction of"
        " the pool; choose one to save time; the default is all three, and fraction with --protocol paper (all for "
        "sets that the paper takes whole)",
    )
    add(
        "--probe-fraction",
        role=Role.RESULT,
        type=real(0, 1, above=True),
        default=0.01,
        metavar="F",
        help="fraction of the pool that the fraction probe learns from; raise it for small data sets",
    )
    add(
        "--probe-seeds",
        role=Role.RESULT,
        type=whole(1),
        default=5,
        metavar="N",
        help="number of balanced subsets that the probe is repeated on; more give a more stable mean",
    )
    add(
        "--layers",
        role=Role.RUN,
        nargs="+",
        metavar="LAYER",
        default=["encoder", "projection"],
        help="which features are probed, the first ones for predictions.csv: encoder, projection, or any module of the "
        "encoder by its name, such as layer3 of a ResNet or blocks.8 of a ViT; results are usually reported for the "
        "encoder, but an earlier stage may be better for a rare class",
    )


def add_clinical(parser: Parser) -> None:
    """Add how predictions are evaluated."""
    add = parser.add_argument_group("classification metrics").add_argument
    add(
        "--positive-class",
        role=Role.RESULT,
        type=class_word,
        metavar="CLASS",
        help="name or label of the class that AUROC, AUPRC, F1 and sensitivity refer to; the default is the minority",
    )
    add(
        "--bootstrap",
        role=Role.RESULT,
        type=whole(0),
        default=2000,
        metavar="DRAWS",
        help="number of bootstrap samples for the 95 %% confidence intervals; lower it to save time, 0 leaves them out",
    )
    add(
        "--deploy-prevalence",
        role=Role.RESULT,
        nargs="+",
        type=real(0, 0.999999, above=True),
        metavar="P",
        help="prevalence of the positive class where the model will be used, for PPV, NPV, AUPRC and net benefit "
        "there; set it when the test split has more positives than practice",
    )
    add(
        "--calibration",
        role=Role.RESULT,
        choices=METHODS,
        default="auto",
        before="auto",
        help="how validation makes probabilities of scores: Platt scaling, the prior offset alone (auto below 20 "
        "samples of a class), isotonic regression (from 200 positives on), or none, which leaves them out",
    )
    add(
        "--decision-thresholds",
        role=Role.RESULT,
        nargs="+",
        type=real(0, 0.999999, above=True),
        default=list(DECISION_THRESHOLDS),
        before=list(DECISION_THRESHOLDS),
        metavar="P",
        help="probabilities from which one would act, for the net benefit; set them to the risks at which practice "
        "treats or looks closer",
    )


def class_word(text: str) -> int | str:
    """Read --positive-class: a number as one, so that it is stored as in earlier versions; else a name."""
    return int(text) if text.isdecimal() and text == str(int(text)) else text


def add_metrics(parser: Parser) -> None:
    """Add what compute_metrics.py measures."""
    add = parser.add_argument_group("metrics").add_argument
    add(
        "--embeddings",
        role=Role.WHERE,
        metavar="FILE.npz",
        help="evaluate the arrays embeddings [V, N, D] (V >= 2 views), or features [N, D], and labels [N] of this "
        "file, from any encoder, instead of a checkpoint",
    )
    add(
        "--split",
        role=Role.RESULT,
        choices=("train", "val", "test"),
        default="test",
        help="which samples are embedded; use train to see what the loss saw",
    )
    add(
        "--views",
        role=Role.RESULT,
        type=whole(2),
        default=5,
        metavar="V",
        help="augmented views per sample; 5 as in the paper; keep it when you compare, since SAA depends on it",
    )
    add(
        "--max-samples",
        role=Role.RESULT,
        type=whole(2),
        default=2000,
        metavar="N",
        help="largest number of samples, drawn with the class proportions of the split; keep it when you compare, "
        "since SAA falls as it grows",
    )
    add(
        "--radius",
        role=Role.RESULT,
        type=real(0, 1, above=True),
        default=0.05,
        metavar="R",
        help="fraction of all embeddings that counts as the neighbourhood for CAC; 0.05 as in the paper; raise it "
        "for very few samples",
    )
    add(
        "--peu-draws",
        role=Role.RESULT,
        type=whole(0),
        default=5,
        metavar="N",
        help="number of random point sets for PEU, by far the slowest metric; lower it to save time, 0 leaves PEU out",
    )
    _add_pictures(add)


def _add_pictures(add: Callable[..., object]) -> None:
    add(
        "--scatter",
        role=Role.RUN,
        choices=("pca", "tsne", "none"),
        default="pca",
        help="two-dimensional projection in the figure: tsne shows clusters but takes a minute, none draws no "
        "figure, for sweeps",
    )
    add(
        "--projector",
        role=Role.RUN,
        action="store_true",
        help="also write the embeddings with thumbnails for TensorBoard's projector, to look at single images",
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
