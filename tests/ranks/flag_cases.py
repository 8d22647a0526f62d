"""The flags of the training scripts, in commands that must compute the same on any number of ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttc import distributed
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.networks import PretrainNetwork
from ttc.training.training_state import TrainingState

COMMON = {
    "pretrain": "--train-samples 96 --batch-size 24 --epochs 1 --lr 0.05 --warmup-epochs 0.5 --seed 1 "
    "--log-every-steps 1 --metrics-every-epochs 0",
    "finetune": "--checkpoint start/checkpoints/last.pt --batch-size 48 --epochs 2 --lr 0.05 --warmup-epochs 0.5 "
    "--seed 1 --log-every-steps 1 --select-by loss --patience 0 --bootstrap 0",
}
CASES = {
    "pretrain": {
        "head": "--projection-batchnorm --projection-dim 16",
        "network": "--encoder resnet18 --stem imagenet --image-size 16 --class-ratios 0.75 0.25 --train-samples 24 "
        "--batch-size 8",
        "weights": "--weights weights.pt --encoder convnet-w4 --allow-missing-weights --normalise data",
        "layers": "--encoder convnet-w4 --freeze-until layers.0 --encoder-lr 0.02 --layer-decay 0.7 --average-from 0.5",
        "frozen": "--weights weights.pt --encoder convnet-w4 --freeze-encoder --micro-batch-size 12",
        "views": "--augmentation natural --crop-scale 0.4 0.9 --jitter-strength 0.5 --minority-cutmix 0.5",
        "balanced": "--batch-sampler balanced --classes 0,1,2 3,4 --class-ratios 0.9 0.1 --minority-class 1",
        "stratified": "--batch-sampler stratified --one-vs-rest 7",
        "rare images in every batch": "--min-minority-per-batch 3 --positive-classes 7,8",
        "micro-batches": "--micro-batch-size 12 --projection-batchnorm --minority-cutmix 0.5 --ema-decay 0.6 "
        "--sam-rho 0.1",
        "terms": "--ce-weight 0.5 --instance-weight 0.3 --prototype-weight 0.2 --ratio-supervised-majority 0.3 "
        "--temperature 0.2 --base-temperature 0.1",
        "margin": "--method supproto --margin 0.1 --sam-rho 0.1",
        "settings": "--method focal --method-settings gamma=3",
        "optimizer": "--optimizer adamw --weight-decay 0.1 --clip-gradient-norm 0.5",
        "half precision": "--precision bf16 --projection-batchnorm",
    },
    "finetune": {
        "all": "--loss focal --class-weights 1 2 --linear-epochs 1 --encoder-lr 0.02 --layer-decay 0.7 "
        "--clip-gradient-norm 0.5 --ema-decay 0.6",
        "upper layers": "--freeze-until layers.3 --loss logit-adjusted-ce --micro-batch-size 24 "
        "--min-minority-per-batch 3 --average-from 0.4",
        "from scratch": "--from-scratch --augmentation natural --crop-scale 0.5 1 --jitter-strength 0.5 "
        "--minority-cutmix 0.4",
        "head": "--freeze-encoder --batch-sampler balanced --optimizer adam --weight-decay 0.1",
        "half precision": "--precision bf16",
    },
}
IN_FLOAT32 = ("half precision",)
"""The first loss in the numbers that the flag asks for; others train in float64, where a difference is no rounding."""
ADAPTIVE = ("optimizer",)
"""Where a gradient is zero up to rounding, Adam makes a whole step of its sign: the losses alone are compared."""
EVERYWHERE = {"--select-by", "--patience", "--bootstrap", "--metrics-every-epochs"}
"""Given with all commands so that they are short, although ranks do not matter to them."""

IRRELEVANT = {
    "-h": "prints the help",
    "--dry-run": "trains nothing",
    "--device": "parity of devices is no matter of ranks",
    "--compile": "tests/smoke/test_compile.py: compiled and plain steps are the same",
    "--drop-path": "draws of every rank's own; tests/models/test_encoders.py: their probabilities",
    "--grad-checkpointing": "the gradients are the same on every rank; tests/ranks/test_encoders.py",
    "--steps": "become epochs of the global batches; tests/flags/test_budget.py",
    "--num-workers": "decode images; tests/datasets: the batches do not depend on them",
    **dict.fromkeys(
        [
            *("--dataset", "--data-root", "--on-bad-image", "--stored-size", "--cache", "--cache-folder"),
            *("--framing", "--intensity", "--dicom-window"),
        ],
        "where images come from: every rank reads the same ones, and the order of ids is that of the other flags",
    ),
    **dict.fromkeys(
        [
            *("--label-column", "--path-column", "--id-column", "--group-column", "--split-column", "--split-rule"),
            *("--fold", "--group-copies"),
        ],
        "how a table is read: by every rank, as a whole",
    ),
    "--figures": "whether a finished result is drawn; tests/smoke/test_groups.py",
    "--json": "what standard output gets; tests/run/test_folder.py",
    **dict.fromkeys(
        ("--output", "--resume", "--save-every-epochs", "--stop-after-minutes", "--timeout-minutes"),
        "when files are written and processes end; tests/reliability: several ranks decide together",
    ),
    **dict.fromkeys(
        ("--metrics-every-epochs", "--stop-on-collapse"),
        "watch the run, which is the same without; tests/reliability/test_exactness.py",
    ),
    **dict.fromkeys(
        [
            *("--select-by", "--patience", "--positive-class", "--class-balance", "--deploy-prevalence", "--bootstrap"),
            *("--calibration", "--decision-thresholds", "--per-group", "--group-label", "--subgroup-columns"),
        ],
        "evaluate on validation and test data, of which every rank has all",
    ),
}


@dataclass
class Ran:
    """What a command left: the loss of each step, the weights at its end, the error instead of both."""

    error: str = ""
    losses: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def prepare(folder: Path) -> None:
    """Write what the commands start from: weights of an encoder, and a run to fine-tune."""
    torch.manual_seed(5)
    encoder = build_encoder(EncoderSpec("convnet-w4", 1, 8))
    torch.save(encoder.state_dict(), folder / "weights.pt")
    assert not _run(folder, "pretrain", "--train-samples 200 --epochs 0 --encoder convnet-w4 --output start").error


def run_all(world: distributed.World, folder: Path) -> dict[str, Ran]:
    """Run every command on this rank of several."""
    traces = {}
    for script, cases in CASES.items():
        for name, words in cases.items():
            command = f"{COMMON[script]} {words} --output {world.size}-{script}-{name.replace(' ', '-')}"
            exact = contextlib.nullcontext() if name in IN_FLOAT32 else in_float64(objective=script == "pretrain")
            with exact:
                traces[f"{script}: {name}"] = _run(folder, script, command)
    return traces


def _run(folder: Path, script: str, command: str) -> Ran:
    os.chdir(folder)
    sys.argv = [f"{script}.py", *command.split()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            assert importlib.import_module(script).main() == 0
        distributed.wait()
    except (Exception, SystemExit) as error:  # one broken command must not hide the others
        return Ran(error=f"{type(error).__name__}: {error}")
    output = folder / command.split()[-1]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    state = torch.load(output / "checkpoints" / "last.pt", weights_only=True)
    parts = ("encoder", "projection", "objective")
    return Ran("", losses, {f"{part}.{key}": value for part in parts for key, value in (state[part] or {}).items()})


@contextlib.contextmanager
def in_float64(*, objective: bool):  # type: ignore[no-untyped-def]  # a context manager
    """Let the scripts train in float64: the objective as well, unless the script hands it float32."""
    forward, begin = PretrainNetwork.forward, TrainingState.__init__

    def exact_forward(self: PretrainNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images.double())
        if self.projection is None:
            return features, features
        return features, functional.normalize(self.projection(features), dim=1)

    def exact_begin(self: TrainingState, *values: object, **named: object) -> None:
        begin(self, *values, **named)  # type: ignore[arg-type]  # as they came
        for part in dataclasses.fields(self):
            module = getattr(self, part.name)
            if isinstance(module, nn.Module) and (objective or part.name == "network"):
                module.double()

    PretrainNetwork.forward, TrainingState.__init__ = exact_forward, exact_begin  # type: ignore[method-assign]
    try:
        yield
    finally:
        PretrainNetwork.forward, TrainingState.__init__ = forward, begin  # type: ignore[method-assign]
