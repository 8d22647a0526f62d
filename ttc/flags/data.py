"""What is trained on: data and augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable

from ttc.batches.augment import PRESETS
from ttc.datasets import DATASETS
from ttc.datasets.pixels.preprocessing import FRAMINGS
from ttc.flags.data_settings import add_splits
from ttc.flags.parser import Parser, real, whole
from ttc.run.roles import Role


def add_data(parser: Parser) -> None:
    """Add what names the images and the two classes."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--dataset",
        role=Role.GROUPED,
        default="digits",
        metavar="NAME",
        help=f"where the images come from: {', '.join(DATASETS)}",
    )
    add(
        "--data-root",
        role=Role.WHERE,
        metavar="PATH",
        help="folder of the data set (for csv and arrays, the file itself); set it when the data are not in the "
        "default place",
    )
    add(
        "--classes",
        role=Role.GROUPED,
        nargs="+",
        metavar="LABELS",
        help="one word per class, in label order: source labels or names joined by commas, such as 0,1,2 3,4; set "
        "it to choose or merge classes; labels not named are left out",
    )
    add(
        "--positive-classes",
        role=Role.GROUPED,
        metavar="LABELS",
        help="source labels or names, joined by commas, that form class 1; set it to turn a data set with several "
        "classes into a binary one; the rest is class 0",
    )
    add(
        "--one-vs-rest",
        role=Role.GROUPED,
        metavar="LABEL",
        help="the one source label or name that forms class 1 of a data set with several classes; short for "
        "--positive-classes",
    )
    _add_columns(add)
    add(
        "--class-ratios",
        role=Role.GROUPED,
        nargs="+",
        type=real(0, 1, above=True),
        metavar="SHARE",
        help="share of each class in the training split, summing to 1; set it to study imbalance: the total number"
        " of images is the same for every ratio; by default the data are used as they are, except for digits,"
        " which has no rare class (0.97 0.03)",
    )
    add(
        "--train-samples",
        role=Role.GROUPED,
        type=whole(1),
        metavar="N",
        help="upper limit on the number of training samples; lower it for a quick trial, or to compare data sets "
        "at the same size",
    )
    _add_image_flags(add)


def _add_columns(add: Callable[..., object]) -> None:
    add(
        "--label-column",
        role=Role.RESULT,
        metavar="NAME",
        help="column of the label in the table of csv or ukbb-cardiac, if it is not called label",
    )
    for kind, what in (
        ("path", "column of the file"),
        ("group", "column of the patient or site, which is never divided between splits"),
        ("split", "column of the split (train, val or test)"),
        ("id", "column of the image's id"),
    ):
        add(
            f"--{kind}-column",
            role=Role.RESULT,
            metavar="NAME",
            help=f"{what} in the table of csv, if it is not called {kind}; one table can serve several questions",
        )
    add_splits(add)


def _add_image_flags(add: Callable[..., object]) -> None:
    add(
        "--minority-class",
        role=Role.COMPARED,
        nargs="+",
        type=whole(0),
        metavar="LABEL",
        help="label of the minority class; needed only where no class is the smallest; several labels with three "
        "or more classes",
    )
    add(
        "--image-size",
        role=Role.GROUPED,
        type=whole(4),
        metavar="PX",
        help="side length of the images that the network sees; smaller is faster; the default is the data's own "
        "size, 224 for image files",
    )
    add(
        "--stored-size",
        role=Role.RESULT,
        type=whole(4),
        metavar="PX",
        help="side length to which image files are decoded, before random crops; the default is 1.15 times the "
        "image size; raise it when small crops look blurred",
    )
    _add_preprocessing(add)
    add(
        "--on-bad-image",
        role=Role.RESULT,
        choices=("stop", "skip"),
        default="stop",
        help="what to do with an unreadable image: stop, or skip it and list it (all files are then read once "
        "before training)",
    )
    add(
        "--cache",
        role=Role.WHERE,
        choices=("off", "ram", "disk"),
        default="off",
        help="where decoded image files are kept: in ram for this run, or on disk for later runs too; use it when "
        "decoding holds up training; the pixels are the same",
    )
    add(
        "--cache-folder",
        role=Role.WHERE,
        metavar="FOLDER",
        help="where --cache disk and the file list of iNaturalist are kept; the default is ttc in your cache folder; "
        "name a large disk that all nodes see",
    )


def _add_preprocessing(add: Callable[..., object]) -> None:
    add(
        "--framing",
        role=Role.RESULT,
        choices=FRAMINGS,
        default="crop",
        before="crop",
        help="which part of an image file is used: the centre square (crop), all of it with black bars (pad), or all "
        "of it distorted to a square (squash); change it when findings lie near the border of images that are not "
        "square",
    )
    add_intensity(add)
    add(
        "--dicom-window",
        role=Role.RESULT,
        nargs=2,
        type=real(-math.inf),
        metavar=("CENTER", "WIDTH"),
        help="window of grey values in place of those in the DICOM files, in their units, such as 40 400; give it when "
        "the files have none, or one for another tissue",
    )


def add_intensity(add: Callable[..., object]) -> None:
    """Add how files of more than 8 bits become bytes."""
    add(
        "--intensity",
        role=Role.RESULT,
        nargs="+",
        type=intensity_word,
        metavar="auto|full|LOW HIGH",
        help="which values of image files of more than 8 bits become black and white: the range of the training set "
        "(auto, the default), that of the file's type (full), or two values; give two to compare sets, or to read a "
        "new image of another depth",
    )


def intensity_word(text: str) -> str | float:
    """Read a word of --intensity: a name or a number."""
    return text if text in ("auto", "full") else real(-math.inf)(text)


def add_augmentation(parser: Parser) -> None:
    """Add how views are made."""
    group = parser.add_argument_group("augmentation")
    add = group.add_argument
    add(
        "--augmentation",
        role=Role.RESULT,
        choices=tuple(PRESETS),
        help="preset of random augmentations; change it when the default does not suit your images: digits for "
        "digits, cardiac for ukbb-cardiac, medical for other grey images, otherwise natural",
    )
    add(
        "--crop-scale",
        role=Role.RESULT,
        nargs=2,
        type=real(0, 1, above=True),
        metavar=("MIN", "MAX"),
        help="smallest and largest fraction of the image area that a random crop keeps; raise MIN when the finding"
        " may lie near the border",
    )
    add(
        "--minority-cutmix",
        role=Role.ADDED,
        type=real(0, 1),
        default=0.0,
        metavar="AREA",
        help="largest fraction of a minority image that CutMix replaces by a patch of a majority image; 0.4 helps "
        "with fewer than about 100 minority images",
    )
    add(
        "--jitter-strength",
        role=Role.RESULT,
        type=real(0),
        default=1.0,
        metavar="X",
        help="multiplies all colour augmentations of the preset, including grayscale; use 0 where grey values "
        "carry the diagnosis",
    )


def add_other_data(parser: Parser) -> None:
    """Add labelled data that are not those of the run."""
    add = parser.add_argument_group("other data").add_argument
    add(
        "--dataset",
        role=Role.GROUPED,
        metavar="NAME",
        help=f"kind of the other data: {', '.join(DATASETS)}; set it together with --checkpoint",
    )
    add(
        "--data-root",
        role=Role.WHERE,
        metavar="PATH",
        help="folder of the other data (for csv and arrays: the file itself); set it for data elsewhere",
    )
    add(
        "--classes",
        role=Role.GROUPED,
        nargs="+",
        metavar="LABELS",
        help="one word per class: labels of the other data joined by commas; set it where they have more labels than "
        "the run has classes",
    )
    add(
        "--positive-classes",
        role=Role.GROUPED,
        metavar="LABELS",
        help="labels of the other data, joined by commas, that form class 1; set it where the rest is class 0",
    )
    add(
        "--class-map",
        role=Role.GROUPED,
        nargs="+",
        metavar="A=B",
        help="class A of the other data is class B of the run, or in none with A=; set it where names differ",
    )
    add(
        "--split",
        role=Role.RESULT,
        metavar="NAME",
        help="use only rows of this split; the default is all rows, whatever splits the other data name",
    )
    for kind in ("label", "path", "group", "split", "id"):
        add(
            f"--{kind}-column",
            role=Role.RESULT,
            metavar="NAME",
            help=f"column of the {kind} in the table; set it if it is not called {kind}",
        )
    add(
        "--on-bad-image",
        role=Role.RESULT,
        choices=("stop", "skip"),
        default="stop",
        help="what to do with an unreadable image: end, or leave it out; use skip when a few files are broken",
    )
    add_intensity(add)
