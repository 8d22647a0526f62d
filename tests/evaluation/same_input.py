"""Run a script as a user does, in this process, and write down what its network gets to see."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ttc.models.networks import PretrainNetwork
from ttc.run import runtime


def digests(inputs: Tensor) -> list[str]:
    """Return a digest of every image [N, C, S, S]."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in inputs.cpu()]


def record(script: str, words: list[str], folder: str, output: str) -> None:
    """Run `SCRIPT WORDS` in a folder; write the digests of all images that a network got to a file."""
    seen: set[str] = set()

    def look(module: nn.Module, inputs: tuple[object, ...]) -> None:
        # The plan runs a network without data, to know its memory.
        if isinstance(module, PretrainNetwork) and isinstance(inputs[0], Tensor) and not inputs[0].is_meta:
            seen.update(digests(inputs[0].detach()))

    nn.modules.module.register_module_forward_pre_hook(look)
    os.chdir(folder)
    sys.argv = [script, *words]
    with Path(output).with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            runtime.run(importlib.import_module(script).main)
        finally:
            Path(output).write_text(json.dumps(sorted(seen)))
            torch.set_grad_enabled(True)
