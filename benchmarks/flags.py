"""What all benchmarks take: threads, turns, device, other libraries, output."""

from __future__ import annotations

from pathlib import Path

from ttc.flags.parser import Parser, whole


def add_benchmark(parser: Parser, *, repeats: int, peers: str | None = None) -> None:
    """Add the flags of a benchmark.

    Args:
        parser: changed in place.
        repeats: default number of turns.
        peers: the libraries that `--peers` compares with, if there are any.
    """
    add = parser.add_argument_group("benchmark").add_argument
    add(
        "--repeats",
        type=whole(1),
        default=repeats,
        metavar="N",
        help="turns in which all cases are timed once, after a warm-up; raise it on a busy machine",
    )
    add(
        "--threads",
        type=whole(1),
        default=1,
        metavar="N",
        help="CPU threads; with one, processor time is measured, which other processes disturb less",
    )
    add(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N or auto, which takes CUDA where there is one"
    )
    if peers is not None:
        add("--peers", action="store_true", help=f"also time {peers} where installed")
    add("--output", type=Path, metavar="FILE.csv", help="table to write")
