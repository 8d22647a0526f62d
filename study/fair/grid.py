"""What study/protocol.md compares: tasks, rows, learning rates, lengths and seeds, and the run that each of them is.

A run is a line of a manifest. Its name, TASK/ROW-lrLR-eEPOCHS-seedSEED[-foldFOLD], says all that sets it apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ttc.run.manifest import Line

RATES = (0.01, 0.03, 0.1, 0.25)
"""Peak learning rates that are tried."""
LONGER = 4
"""The long schedule is this many times the short one."""
WARMUP = 0.2
"""Share of a schedule over which the learning rate rises."""
TUNING_SEED = 100
"""Of the runs that choose rate and length; never reported."""
FURTHER_SEEDS = (101, 102)
"""Of the runs beside the tuning ones by which a candidate recipe is chosen; never reported."""
SEEDS = (0, 1, 2, 3, 4)
"""Of the runs that are reported; of a task in folds, seed s belongs to fold s + 1."""

CONSTRUCTED, NATURAL = ("minority", "fraction"), ("minority", "all")


@dataclass(frozen=True)
class Task:
    """A data set and a minority share.

    Attributes:
        epochs: of the short schedule of a method that embeds two views of an image.
        dataset: tasks of one data set share test images, so their runs of one seed are no independent observations.
        probes: training samples of probe i and of probe ii.
        kinds: of the rows that run here.
        folds: number of test folds; None for a fixed test set.
        linear_eval: further flags of linear_eval.py.
        recipe: name of the recipe, if it is not the task's.
        start: flags of pretrain.py for encoders that do not begin with random weights.
        probed: the layer whose features the probes learn from.
        longer: whether the long schedule is tried.
    """

    epochs: int
    dataset: str
    probes: tuple[str, str]
    kinds: tuple[str, ...] = ("main",)
    folds: int | None = None
    linear_eval: tuple[str, ...] = ()
    recipe: str | None = None
    start: tuple[str, ...] = ()
    probed: str = "encoder"
    longer: bool = True


_QUARTER = ("--probe-fraction", "0.25")
_LONG_TAILED = ("main", "long-tailed")
_CONFIRMING = ("main", "chosen")
TASKS: dict[str, Task] = {
    "mix5-99": Task(3, "fashion-mix5", CONSTRUCTED, (*_LONG_TAILED, "long-tailed-shuffled", "candidate")),
    "breast": Task(25, "breast", NATURAL, (*_LONG_TAILED, "candidate")),
    "pneumonia-99": Task(4, "pneumonia", CONSTRUCTED, (*_LONG_TAILED, "chosen"), linear_eval=_QUARTER),
    "mix5-95": Task(3, "fashion-mix5", CONSTRUCTED, _CONFIRMING),
    "shirt-99": Task(3, "fashion-shirt", CONSTRUCTED, _CONFIRMING),
    "shirt-95": Task(3, "fashion-shirt", CONSTRUCTED, _CONFIRMING),
    "pneumonia-95": Task(4, "pneumonia", CONSTRUCTED, _CONFIRMING, linear_eval=_QUARTER),
    "pneumonia": Task(3, "pneumonia", NATURAL, _CONFIRMING),
    "hannover": Task(25, "hannover", NATURAL, folds=5),
    "platelets": Task(1, "platelets", NATURAL),
}
"""Name -> task, in the order in which they run; the recipe of a task is scripts/recipes/fair-NAME.args."""

STARTS: dict[str, tuple[str, ...]] = {
    name: ("--weights", f"runs/fair-start/{name}-seed0/checkpoints/last.pt") for name in ("ce", "simclr")
}
"""Encoder trained on another data set -> flags that begin with it; scripts/manifests/fair-start.csv trains it."""


def _started(name: str) -> Iterator[tuple[str, Task]]:
    """Yield the pretrained starts of a task: everything trained, and a projector alone on a frozen encoder."""
    task = replace(TASKS[name], recipe=name, longer=False)
    for start, words in STARTS.items():
        yield f"{name}-from-{start}", replace(task, kinds=("start",), start=(*words, "--layer-decay", "0.7"))
    for start, words in {"random": (), **STARTS}.items():
        frozen = replace(task, kinds=("frozen",), start=(*words, "--freeze-encoder"), probed="projection")
        yield f"{name}-frozen-{start}", frozen


BEGUN = ("breast", "pneumonia-99")
"""Tasks that are tried from pretrained starts."""
TASKS |= {name: task for base in BEGUN for name, task in _started(base)}


@dataclass(frozen=True)
class Row:
    """A method with its batches.

    Attributes:
        words: flags of pretrain.py.
        views: images that an encoder embeds per training image and step; with one view a row gets twice the steps.
        kinds: a task runs the row if it names one of them.
    """

    words: tuple[str, ...]
    views: int = 2
    kinds: tuple[str, ...] = ("main",)


_BALANCED = ("--batch-sampler", "balanced")
_CUTMIX = ("--minority-cutmix", "0.4")
_JOINT = ("--method", "supcon", "--instance-weight", "0.5", "--ce-weight", "1", *_CUTMIX)
UNTRAINED = "untrained"
_AVERAGE = ("--ema-decay", "0.99")
_ALWAYS = ("main", "start", "frozen")
ROWS: dict[str, Row] = {
    **{name: Row(("--method", name)) for name in ("simclr", "supcon", "supmin", "supproto")},
    **{name: Row(("--method", name), views=1) for name in ("weighted-ce", "logit-adjusted-ce")},
    **{f"{name}-balanced": Row(("--method", name, *_BALANCED), kinds=_ALWAYS) for name in ("supmin", "supproto")},
    "supcon-balanced": Row(("--method", "supcon", *_BALANCED)),
    "ce-balanced": Row(("--method", "ce", *_BALANCED), 1, ("main", "start")),
    "cutmix-balanced": Row(("--method", "ce", *_CUTMIX, *_BALANCED), views=1),
    "joint-balanced": Row((*_JOINT, *_BALANCED), kinds=_ALWAYS),
    **{
        f"{name}{ending}": Row(("--method", name, *words), views, (f"long-tailed{kind}",))
        for name, views in (("kcl", 2), ("paco", 2), ("proco", 3), ("ldam-drw", 1))
        for ending, kind, words in (("", "-shuffled", ()), ("-balanced", "", _BALANCED))
    },
    "simclr-balanced": Row(("--method", "simclr", *_BALANCED), kinds=("long-tailed", "start", "frozen")),
    "ce": Row(("--method", "ce"), 1, ("long-tailed-shuffled",)),
    "cutmix": Row(("--method", "ce", *_CUTMIX), 1, ("long-tailed-shuffled",)),
    "joint": Row(_JOINT, kinds=("long-tailed-shuffled",)),
    "joint-average": Row((*_JOINT, *_BALANCED, *_AVERAGE), kinds=("candidate",)),
    "cutmix-average": Row(("--method", "ce", *_CUTMIX, *_BALANCED, *_AVERAGE), 1, ("candidate",)),
    # The candidate that validation images chose (`winner.winner`): it goes on to the tasks that confirm or refute it.
    "supcon-ce": Row(("--method", "supcon", "--ce-weight", "1", *_BALANCED), kinds=("candidate", "chosen")),
    # Two passes forward and back for each step.
    "joint-sharp": Row((*_JOINT, *_BALANCED, "--sam-rho", "0.05"), 4, ("candidate",)),
}
"""Name -> row. ce-balanced stands for weighted-ce and logit-adjusted-ce as well: with batches of equal classes the
three are one loss."""


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        epochs: over the training images, by the row's own count.
        fold: from 1; None where the test set is fixed.
    """

    task: str
    row: str
    rate: float
    epochs: int
    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """Return its folder."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.task}/{self.row}-lr{self.rate:g}-e{self.epochs}-seed{self.seed}{fold}"

    @property
    def reported(self) -> bool:
        """Return whether its test images are looked at."""
        return self.seed in SEEDS

    def line(self) -> Line:
        """Return its line of a manifest."""
        task = TASKS[self.task]
        words = ROWS[self.row].words if self.row != UNTRAINED else ("--method", "simclr")
        warmup = round(WARMUP * self.epochs, 3)
        pretrain = [
            f"@scripts/recipes/fair-{task.recipe or self.task}.args",
            *words,
            *task.start,
            "--lr",
            f"{self.rate:g}",
        ]
        pretrain += ["--epochs", str(self.epochs), "--warmup-epochs", f"{warmup:g}", "--seed", str(self.seed)]
        if task.folds is not None:
            pretrain += ["--fold", f"{self.fold}/{task.folds}"]
        # Probe "all" of a reported run learns from what the encoder learned from, as the logit-adjusted head does.
        probes = dict.fromkeys((*task.probes, *(["all"] if self.reported else [])))
        probe = ["--layers", task.probed, "--probes", *probes, *task.linear_eval, "--figures", "none"]
        # Intervals are those over seeds.
        probe += ["--bootstrap", "0", "--calibration", "none"]
        probe += ["--floor", "auto" if self.reported and self.row == UNTRAINED else "none"]
        steps = {"linear_eval": tuple(probe)}
        if self.reported:
            steps["linear_eval"] += ("--head", "linear", "logit-adjusted")
            steps["compute_metrics"] = ("--peu-draws", "0", "--scatter", "none")
        return Line(self.name.replace("/", "-"), self.name, {"pretrain": tuple(pretrain), **steps})


def rows_of(task: str) -> list[str]:
    """Return the rows that are trained on a task."""
    return [name for name, row in ROWS.items() if set(row.kinds) & set(TASKS[task].kinds)]


def rows_reported(task: str) -> list[str]:
    """Return the rows whose test images are looked at; the untrained encoder, where it is probed, is one of them."""
    return [*([UNTRAINED] if TASKS[task].probed == "encoder" else []), *rows_of(task)]


def short_epochs(task: str, row: str) -> int:
    """Return the epochs of the short schedule: every row's encoder embeds as many images, up to whole epochs."""
    return round(TASKS[task].epochs * 2 / ROWS[row].views)


def tuning_seeds(task: str) -> list[tuple[int, int | None]]:
    """Return seed and fold of the runs that choose; each fold for itself, since its test images teach others."""
    folds = TASKS[task].folds
    return [(TUNING_SEED, None)] if folds is None else [(TUNING_SEED + fold, fold) for fold in range(1, folds + 1)]


def reported_seeds(task: str) -> list[tuple[int, int | None]]:
    """Return seed and fold of the runs that are reported."""
    return [(seed, None if TASKS[task].folds is None else seed + 1) for seed in SEEDS]


def rate_runs(tasks: Sequence[str]) -> Iterator[Run]:
    """Yield the short runs that choose a learning rate for each row, task and fold."""
    for task in tasks:
        for row in rows_of(task):
            for rate in RATES:
                for seed, fold in tuning_seeds(task):
                    yield Run(task, row, rate, short_epochs(task, row), seed, fold)


def untrained_runs(tasks: Sequence[str]) -> Iterator[Run]:
    """Yield the encoders as they begin, of the reported seeds."""
    for task in (task for task in tasks if TASKS[task].probed == "encoder"):
        for seed, fold in reported_seeds(task):
            yield Run(task, UNTRAINED, RATES[-1], 0, seed, fold)
