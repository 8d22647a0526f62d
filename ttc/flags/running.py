"""How a script runs: device, precision, workers, seed, what pretraining writes when, and what a result is shown as."""

from __future__ import annotations

from ttc.flags.parser import Parser, real, whole
from ttc.run.roles import Role


def add_runtime(parser: Parser, *, precision: bool = True) -> None:
    """Add device, precision, workers and seed."""
    group = parser.add_argument_group("runtime")
    add = group.add_argument
    add(
        "--device",
        role=Role.WHERE,
        default="auto",
        metavar="NAME",
        help="auto uses CUDA if there is any; use cpu for small encoders and for bit-exact resuming",
    )
    if precision:
        add(
            "--precision",
            role=Role.RESULT,
            choices=("fp32", "bf16", "fp16"),
            default="fp32",
            help="floating-point format of the encoder; bf16 is faster on recent GPUs; the loss is always computed in "
            "float32",
        )
        add(
            "--compile",
            role=Role.RESULT,
            action="store_true",
            help="compile the network with torch.compile, in pretraining also the loss of simclr, supcon, supmin and "
            "supproto; only long runs gain more than its start-up time",
        )
    add(
        "--num-workers",
        role=Role.WHERE,
        type=whole(0),
        default=2,
        metavar="N",
        help="processes per device that decode image files; use more when the GPU waits for images; results do not"
        " depend on it",
    )
    add(
        "--seed",
        role=Role.RUN,
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="S",
        help="random seed for splits, subsets, initial weights, order and augmentation; run several seeds to "
        "report mean and standard deviation",
    )


def add_monitoring(parser: Parser) -> None:
    """Add what pretraining watches, and what it does about it."""
    group = parser.add_argument_group("monitoring")
    add = group.add_argument
    add(
        "--metrics-every-epochs",
        role=Role.RESULT,
        type=whole(0),
        default=5,
        metavar="E",
        help="how often SAA, CAC, effective rank, mean cosines and a linear probe are measured on a fixed subset; "
        "raise it when this slows down training, 0 turns it off",
    )
    add(
        "--stop-on-collapse",
        role=Role.RESULT,
        nargs="?",
        type=whole(1),
        const=3,
        default=0,
        before=0,
        counted=True,
        metavar="WATCHES",
        help="stop the run when this many measurements in a row find a collapse (3 if no number is given); saves "
        "time in sweeps, and the result records it",
    )


def add_output(parser: Parser, default: str = "runs/DATASET-METHOD-seedS") -> None:
    """Add the run folder and what is written when."""
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--output", role=Role.WHERE, metavar="FOLDER", help=f"run folder; the default is {default}")
    add(
        "--resume",
        role=Role.WHERE,
        default="auto",
        metavar="auto|never|FILE",
        help="auto: continue the same run where it stopped; never: refuse a folder that holds a run; FILE: "
        "continue from that checkpoint",
    )
    add(
        "--save-every-epochs",
        role=Role.WHERE,
        type=whole(1),
        default=10,
        metavar="E",
        help="keep a checkpoint every E epochs, to look back at; last.pt is written after every epoch",
    )
    add(
        "--log-every-steps",
        role=Role.WHERE,
        type=whole(1),
        default=10,
        metavar="N",
        help="steps between two lines of metrics.jsonl; raise it for short steps, since each line waits for the device",
    )
    add(
        "--stop-after-minutes",
        role=Role.WHERE,
        type=real(0, above=True),
        metavar="MIN",
        help="save a checkpoint and stop after this time, with exit code 75; set it below the time limit of a "
        "cluster job",
    )
    add(
        "--timeout-minutes",
        role=Role.WHERE,
        type=real(0, above=True),
        default=30.0,
        metavar="MIN",
        help="how long a process waits for the others before the run fails; lower it to notice a lost node sooner",
    )
    add(
        "--dry-run",
        role=Role.WHERE,
        action="store_true",
        help="load everything, print the plan, check the command and stop; use it before a long run; writes nothing",
    )


def add_json(parser: Parser) -> None:
    """Add what standard output gets."""
    parser.add_argument_group("output").add_argument(
        "--json",
        role=Role.WHERE,
        action="store_true",
        help="print the whole result at a terminal too; set it to read it there, since files and pipes get it anyway",
    )


def add_figures(parser: Parser) -> None:
    """Add whether a result is drawn."""
    parser.add_argument(
        "--figures",
        role=Role.WHERE,
        before="all",
        choices=("all", "none"),
        default="all",
        help="none leaves the figures out, for sweeps: they take longer than the numbers of a small test set, and "
        "scripts/report.py draws what is compared",
    )
