"""Hand an encoder on: features, TorchScript, ONNX, safetensors, and a model card.

python scripts/export.py --checkpoint runs/NAME/checkpoints/last.pt --format torchscript card
python scripts/export.py --checkpoint runs/NAME/finetune                        best.pt of a fine-tuned run
python scripts/export.py --checkpoint runs/NAME/checkpoints/last.pt --features      for linear_eval.py --embeddings

Writes to RUN/export. Every export is read back and compared with the network; a difference beyond rounding is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor

from ttc import flags
from ttc.evaluation.elsewhere.weights import checkpoint_of, reported_state
from ttc.evaluation.embeddings import about_text
from ttc.evaluation.export import ExportedEncoder, check_parity, save_onnx, save_safetensors, save_torchscript
from ttc.evaluation.new_images import encode, read_images
from ttc.evaluation.probe import module_digest
from ttc.flags import settings
from ttc.flags.parser import Parser
from ttc.models.pretrained import Pretrained, embed_shared, load_network, load_pretrained
from ttc.results.clinic.model_card import model_card
from ttc.run import files, runtime
from ttc.run.checkpoint import write_text
from ttc.run.log import log, start_logging

FORMATS = ("features", "torchscript", "onnx", "safetensors", "card")


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Hand an encoder on: features, TorchScript, ONNX, safetensors, and a model card.",
        "python scripts/export.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt --format torchscript card",
    )
    flags.add_checkpoint(parser, required=True)
    add = parser.add_argument_group("export").add_argument
    add(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["torchscript", "safetensors", "card"],
        help="features: npz of the run's own images, or of --images; torchscript and onnx need no code of this project",
    )
    add("--features", action="store_true", help="short for --format features")
    add("--images", metavar="PATH", help="folder, CSV table or npz file whose features are wanted instead of the run's")
    flags.add_intensity(add)
    flags.add_runtime(parser, precision=False)
    flags.add_evaluation_output(parser)
    return parser


def features_of_run(
    checkpoint: str, data_root: str | None, num_workers: int, device: torch.device
) -> dict[str, object]:
    """Embed all images of the run: the arrays of features.npz."""
    run = load_pretrained(checkpoint, data_root, num_workers, device)
    rows = torch.arange(len(run.dataset.ids))
    outputs = embed_shared(run.network, run.dataset, run.views, rows, views=0, num_workers=num_workers)
    features, z = (output[:, 0].numpy() for output in outputs)
    return {
        "features": features,
        "projection": z,
        "ids": np.array(run.dataset.ids),
        "labels": run.dataset.labels.numpy(),
        "split": run.dataset.splits,
        "class_names": np.array(run.dataset.class_names),
        "about": about_text(about_run(run)),
        **({} if run.dataset.groups is None else {"groups": np.array(run.dataset.groups)}),
    }


def about_run(run: Pretrained) -> dict[str, object]:
    """Say which run features come from: what `embeddings.ABOUT` lists."""
    description = run.description
    return {
        "method": description.method,
        "dataset": description.data["name"],
        "seed": description.seed,
        "step": run.step,
        "split_rule": run.dataset.settings.split_rule,
        "encoder_sha256": module_digest(run.network),
        "minority_class": description.minority_class,
    }


def save_features(path: Path, arrays: dict[str, object]) -> float:
    """Write features.npz; return the difference of what is read back."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    with np.load(path, allow_pickle=False) as file:
        read, written = (torch.from_numpy(np.asarray(features)) for features in (file["features"], arrays["features"]))
    return check_parity("features", read, written)


def example_images(channels: int, size: int) -> Tensor:
    """Return seeded noise [16, C, S, S] in [0, 1], on which exports are compared."""
    return torch.rand(16, channels, size, size, generator=torch.Generator().manual_seed(0))


def main() -> int:
    """Load, export, compare."""
    # 1. parse
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    if args.features:
        args.format = ["features"]
    if args.images is not None and "features" not in args.format:
        parser.refuse("--images goes with --format features")
    if args.intensity is not None and args.images is None:
        parser.refuse("--intensity is for other images than the run's; it goes with --images")
    start_logging(main=True)
    device = runtime.pick_device(args.device)

    # 2. model
    args.checkpoint = checkpoint_of(args.checkpoint)
    network, description, state = load_network(args.checkpoint, torch.device("cpu"))
    reported_state(args.checkpoint, state)
    encoder = ExportedEncoder(network, description)
    images = example_images(description.preprocessing.decoding.channels, encoder.image_size)
    folder = settings.evaluation_folder(args, "export")
    files.place(folder / "card.md")
    files.refuse_links(folder)

    # 3. exports
    for kind in args.format:
        difference = None
        if kind == "features":
            path = folder / "features.npz"
            if args.images is None:
                arrays = features_of_run(args.checkpoint, args.data_root, args.num_workers, device)
            else:
                ids, new = read_images(args.images, description, intensity=settings.new_intensity(args.intensity))
                outputs = encode(network.to(device), description, new, args.num_workers)
                network.cpu()
                features, z = (output.numpy() for output in outputs)
                arrays = {"features": features, "projection": z, "ids": np.array(ids)}
            difference = save_features(path, arrays)
        elif kind == "torchscript":
            path = folder / "encoder.torchscript.pt"
            difference = save_torchscript(path, encoder, images)
        elif kind == "onnx":
            path = folder / "encoder.onnx"
            difference = save_onnx(path, encoder, images)
        elif kind == "safetensors":
            path = folder / "encoder.safetensors"
            difference = save_safetensors(path, encoder, description, images)
        else:
            path = folder / "MODEL_CARD.md"
            run = Path(args.checkpoint).resolve().parent.parent
            write_text(path, model_card(run, description, encoder.feature_dim))
        log.info("%s%s", path, "" if difference is None else f": largest difference {difference:.2g}")
    return 0


if __name__ == "__main__":
    runtime.run(main)
