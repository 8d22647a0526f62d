"""The tables of docs/performance/: which command writes each of them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

FOLDER = Path("docs/performance")

AVX2 = "ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2"
"""What makes torch and its libraries leave AVX-512 and AMX alone, as on a CPU without them."""
CPU = {
    "losses": "losses --samples 256 1024 --repeats 15 --peers",
    "losses_4096": "losses --samples 4096 --methods supcon supmin --repeats 2 --peers",
    "losses_32768": "losses --samples 8192 32768 --methods supcon --repeats 1 --reference-limit 0",
    "losses_avx2": f"{AVX2} losses --samples 256 1024 --methods simclr supcon supmin supproto --repeats 15",
    "losses_avx2_4096": f"{AVX2} losses --samples 4096 --methods supcon --repeats 2",
    "metrics": "metrics --samples 1000 --repeats 3 --peers",
    "metrics_5000": "metrics --samples 5000 --cases pairs --repeats 1",
    "metrics_peu_5000": "metrics --samples 5000 --cases peu --repeats 1",
    "augment": "augment --repeats 7 --peers",
    "decoding": "decoding --images 20 --repeats 3",
    "training": "training --batch-size 256 --repeats 3 --peers",
    "training_convnet": "training --encoder convnet-w16 --batch-size 256 --repeats 5 --steps 'ttc fp32' 'ttc bf16' "
    "--compile",
    "training_224": "training --encoder resnet50 --image-size 224 --batch-size 16 --micro-batch-size 4 --repeats 1 "
    "--steps 'ttc fp32' 'ttc bf16'",
    "scaling": "training --ranks 1 2 --repeats 5",
    "bound": "bound --encoder resnet18-w16 convnet-w16",
    "bound_224": "bound --encoder resnet50 convnext_tiny timm/vit_small_patch16_224 --image-size 224 --batch-size 4 "
    "--steps 1 --repeats 2",
    "original": "original",
    "sweep": "sweep --lines 20",
    "starts": "starts --repeats 5",
}
"""Table -> variables of the environment, benchmark and its flags, in the order of the page; on a CPU."""
GPU = {
    "losses_gpu": "losses --device cuda --samples 256 1024 4096 --repeats 15 --peers --compile",
    "metrics_gpu": "metrics --device cuda --samples 5000 --repeats 3",
    "training_gpu": "training --device cuda --encoder resnet18-w64 --batch-size 256 --repeats 7 --compile --peers",
    "bound_gpu": "bound --device cuda --steps 20 --precision bf16",
    "bound_224_gpu": "bound --device cuda --encoder resnet50 convnext_tiny timm/vit_small_patch16_224 --image-size 224 "
    "--batch-size 256 --steps 5 --repeats 3 --num-workers 16 4 --precision bf16",
}
"""The same on a GPU."""


def words_of(table: str) -> list[str]:
    """Return the words of the command that writes a table, after `python`."""
    script, *words = shlex.split((CPU | GPU)[table])[len(_variables(table)) :]
    return [f"benchmarks/{script}.py", *words, "--output", str(FOLDER / f"{table}.csv")]


def environment_of(table: str) -> dict[str, str]:
    """Return the environment of the command that writes a table."""
    return os.environ | dict(word.split("=", 1) for word in _variables(table))


def _variables(table: str) -> list[str]:
    return [word for word in shlex.split((CPU | GPU)[table]) if word.split("=")[0].isupper()]


def command_of(table: str) -> str:
    """Return the command as the table holds it."""
    return shlex.join([*_variables(table), "python", *words_of(table)])
