"""The columns of tables: what each shows and what it means. A new column is one line here."""

from __future__ import annotations

from dataclasses import dataclass

from ttc.results.table_parts.collapse import MEANING as COLLAPSE_MEANING


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        metric: what it shows, as in the ledger.
        group: heading that several columns share.
        heading: of this column alone.
        meaning: one line for the legend.
        scale: factor before printing.
        digits: after the point.
        best: whether the highest value of a group is set in bold.
        deviation: whether the standard deviation over seeds says anything.
        interval: whether the 95 % interval is shown too.
        optional: left out where no run has it.
    """

    metric: str
    group: str
    heading: str
    meaning: str
    scale: float = 1.0
    digits: int = 1
    best: bool = True
    deviation: bool = True
    interval: bool = False
    optional: bool = False

    @property
    def title(self) -> str:
        """Both headings."""
        return f"{self.group} {self.heading}".strip()


COLLAPSED = Column("collapsed", "", "collapsed", COLLAPSE_MEANING, best=False)
"""Shows a word, not a number; see `ttc.results.table_parts.collapse`."""

_SMALL = "balanced accuracy of a probe on as many images per class as the minority has, %"
_LARGE = "balanced accuracy of a probe on a balanced share of the pool, %"
_OF_FOLDS = (
    "mean of the folds' AUROCs, %; all other numbers of a classifier are of the pooled predictions of all folds, each "
    "with the calibrator and the thresholds of its own fold"
)
_TUNED = "balanced accuracy of the whole network, trained on from the checkpoint, %"
_SCRATCH = "balanced accuracy of the same training from random weights, %"
COLUMNS = (
    Column("encoder/minority/balanced_accuracy", "probe i", "acc", _SMALL, 100),
    Column("encoder/minority/auroc", "probe i", "AUC", "AUROC of this probe, %", 100),
    Column("encoder/minority/auroc_mean_of_folds", "probe i", "fold AUC", _OF_FOLDS, 100, optional=True),
    Column("encoder/fraction/balanced_accuracy", "probe ii", "acc", _LARGE, 100),
    Column("encoder/fraction/auroc", "probe ii", "AUC", "AUROC of this probe, %", 100),
    Column(
        "encoder/fraction/auroc_mean_of_folds", "probe ii", "fold AUC", "mean of the folds' AUROCs, %", 100,
        optional=True,
    ),
    Column(
        "encoder/minority/calibration/after/intercept", "calibr.", "icpt",
        "calibration intercept of probe i; 0 is right",
        digits=2, best=False, optional=True,
    ),
    Column(
        "encoder/minority/calibration/after/slope", "calibr.", "slope", "calibration slope of probe i; 1 is right",
        digits=2, best=False, optional=True,
    ),
    Column("finetune/own/classifier/balanced_accuracy", "fine-tuned", "acc", _TUNED, 100, optional=True),
    Column("finetune/own/classifier/auroc", "fine-tuned", "AUC", "its AUROC, %", 100, optional=True),
    Column(
        "finetune/own/classifier/auroc_mean_of_folds", "fine-tuned", "fold AUC", "mean of the folds' AUROCs, %", 100,
        optional=True,
    ),
    Column("from_scratch/own/classifier/balanced_accuracy", "from scratch", "acc", _SCRATCH, 100, optional=True),
    Column("from_scratch/own/classifier/auroc", "from scratch", "AUC", "its AUROC, %", 100, optional=True),
    Column("projection/SAA/majority", "SAA", "maj", "sample alignment accuracy of the majority, %"),
    Column("projection/SAA/minority", "SAA", "min", "sample alignment accuracy of the minority, %"),
    Column("projection/CAC/majority", "CAC", "maj", "class alignment consistency of the majority, %"),
    Column("projection/CAC/minority", "CAC", "min", "class alignment consistency of the minority, %"),
    Column(
        "projection/mean_cosine/all", "cosine", "mean", "mean cosine of all pairs of embeddings; 1 = one point",
        digits=2, best=False,
    ),
    Column("train/loss", "loss", "end", "training loss of the last steps", digits=2, best=False),
    COLLAPSED,
    Column("train/seconds", "time", "s", "seconds of pretraining", digits=0, best=False, deviation=False),
)  # fmt: skip


WANTED = (
    *(column.metric for column in COLUMNS if column is not COLLAPSED and not column.metric.endswith("_of_folds")),
    "train/collapse_value",
)
"""What a ledger has a line for, whether a run has it or not."""

DECIDED = "at the threshold that validation chose for the largest sensitivity + specificity, %"
PAPER = (
    Column("n", "test", "n", "images of the test set", digits=0, best=False, deviation=False),
    Column("positives", "test", "pos.", "those of the positive class", digits=0, best=False, deviation=False),
    Column("auroc", "", "AUROC", "area under the ROC curve, %", 100, interval=True),
    Column("auroc_mean_of_folds", "", "fold AUC", _OF_FOLDS, 100, optional=True),
    Column("auprc", "", "AUPRC", "average precision, %", 100, interval=True),
    Column("operating_points/youden/balanced_accuracy", "", "bal.acc.", f"balanced accuracy {DECIDED}", 100,
           interval=True),
    Column("operating_points/youden/sensitivity", "", "sens.", "sensitivity there, %", 100, best=False,
           interval=True),
    Column("operating_points/youden/specificity", "", "spec.", "specificity there, %", 100, best=False,
           interval=True),
)  # fmt: skip
"""The table that papers print: a part per classifier, see `ttc.results.table_parts.paper`."""
