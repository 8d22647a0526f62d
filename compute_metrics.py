"""Measure how embeddings are arranged: SAA, CAC and the metrics that miss a collapse.

python compute_metrics.py --checkpoint runs/NAME/checkpoints/last.pt
python compute_metrics.py --embeddings FILE.npz        arrays embeddings [V, N, D] and labels [N], from any encoder;
                                                       of features [N, D], one view, all but SAA and SAD
torchrun --nproc-per-node 4 compute_metrics.py ...     the ranks share the pairs of many samples; the same numbers

Embeds seeded augmented views of one split, prints a table, and writes metrics.json, figures (PNG and PDF),
embeddings.npz and, with --projector, files for TensorBoard to RUN/metrics. Standard output gets one line of JSON:
all of it, or at a terminal, unless --json is given, what matters.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":
    gc.disable()  # until all is imported, which leaves nothing to collect
    # Work of seconds in thousands of small pieces: threads that wait busily take longer than the work, beside others.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | os.environ

import numpy as np
import torch
from torch import Tensor

from ttc import distributed, flags
from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.embeddings import read_features
from ttc.evaluation.probe import balanced_rows, evaluation_rows
from ttc.flags import settings
from ttc.flags.parser import Parser
from ttc.metrics.portions import Portion
from ttc.metrics.representation import RepresentationMetrics, representation_metrics, undefined_metrics
from ttc.models.pretrained import Pretrained, embed_shared, load_pretrained, without_dead
from ttc.results.embedding_figures import save_embedding_figure
from ttc.results.figure_style import drawing
from ttc.results.metric_tables import format_table
from ttc.run import files, ledger, runtime
from ttc.run.folder import RunFolder, tell
from ttc.run.log import log, save_projector, start_logging

_OF_IMAGES = ("views", "max_samples", "class_balance", "projector", "data_root")
"""Flags that have no effect on embeddings that were made elsewhere."""


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Measure how embeddings are arranged on the sphere.",
        "python compute_metrics.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt",
        writes_run=True,
    )
    flags.add_checkpoint(parser, required=False)
    flags.add_metrics(parser)
    flags.add_evaluation_set(parser)
    flags.add_runtime(parser, precision=False)
    flags.add_evaluation_output(parser)
    flags.add_json(parser)
    return parser


def refuse_idle(parser: Parser, args: argparse.Namespace, sources: Mapping[str, str]) -> None:
    """End with exit code 2 unless there is one source, and where a flag would have no effect on it."""
    if (args.checkpoint is None) == (args.embeddings is None):
        parser.refuse("give either --checkpoint or --embeddings")
    if args.embeddings is not None and (idle := [name for name in _OF_IMAGES if sources[name] != "default"]):
        flag = idle[0].replace("_", "-")
        parser.refuse(f"--{flag} says how images are embedded, which --embeddings holds already; leave it out")


def load_embeddings(path: str, split: str = "test") -> tuple[Tensor, Tensor, list[str]]:
    """Read embeddings [V, N, D] or features [N, D], a single view, with labels [N] and the names of the classes.

    Of a file that names splits, it is the samples of one of them.
    """
    file = read_features(Path(path), "--embeddings")
    assert file.labels is not None
    if file.splits is None:
        return file.views, file.labels, file.class_names
    rows = torch.tensor([row for row, name in enumerate(file.splits) if name == split], dtype=torch.int64)
    if not len(rows):
        raise ValueError(f"--embeddings {path} has no sample of split {split!r}; choose another --split")
    return file.views[:, rows], file.labels[rows], file.class_names


def choose_rows(run: Pretrained, split: str, class_balance: str, most: int) -> Tensor:
    """Return the rows to embed: the split, or a seeded draw from it with the same class shares."""
    rows = evaluation_rows(run.dataset, split, class_balance)
    if len(rows) <= most:
        return rows
    labels, chosen = run.dataset.labels[rows], []
    for label in range(len(run.dataset.class_names)):
        members = rows[labels == label]
        count = max(1, round(most * len(members) / len(rows)))
        chosen.append(balanced_rows(run.dataset, members, count, f"metrics-{split}", run.description.seed))
    return torch.cat(chosen).sort().values


def described(run: Pretrained, split: str, class_balance: str) -> dict[str, object]:
    """Return what a result says about its run."""
    description = run.description
    return {
        "method": description.method,
        "dataset": description.data["name"],
        "seed": description.seed,
        "step": run.step,
        "split": split,
        "class_balance": class_balance,
    }


def log_table(layer: str, metrics: dict[str, RepresentationMetrics], class_names: list[str], minority: int) -> None:
    """Log the table of a layer, or that it repeats another one."""
    same = next((first for first, values in metrics.items() if first != layer and values == metrics[layer]), None)
    lines = format_table(metrics[layer], class_names, minority)
    for line in [f"-- {layer}", *(lines if same is None else [f"the same as {same}: there is no projection head"])]:
        log.info("%s", line)


def draw_figures(
    folder: Path,
    scatter: str,
    layers: dict[str, tuple[Tensor, Tensor]],
    class_names: list[str],
    prototypes: Tensor | None,
) -> None:
    """Draw a figure per layer."""
    for layer, (values, labels) in layers.items():
        if scatter == "none" or len(labels) < 2:
            continue
        with drawing(folder / f"{layer}.png"):
            save_embedding_figure(
                folder / f"{layer}.png",
                values.numpy(),
                labels.numpy(),
                class_names,
                prototypes=prototypes.numpy() if prototypes is not None and layer == "projection" else None,
                title=f"{layer}, {len(labels)} samples",
                scatter=scatter,
            )


def save_embeddings(
    path: Path, embeddings: tuple[Tensor, Tensor], class_names: list[str], prototypes: Tensor | None
) -> None:
    """Write embeddings with their labels as an npz file."""
    arrays = {name: tensor.numpy() for name, tensor in zip(("embeddings", "labels"), embeddings, strict=True)}
    arrays["class_names"] = np.array(class_names)
    if prototypes is not None:
        arrays["prototypes"] = prototypes.numpy()
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    files.replace(path, packed.getbuffer())


def main() -> int:
    """Load or embed, measure, save."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    refuse_idle(parser, args, given.sources)
    if args.embeddings is None:
        args.checkpoint = given.values["checkpoint"] = checkpoint_of(args.checkpoint)

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device), distributed.EVALUATION_MINUTES)
    start_logging(world.main)

    # 3. run folder
    folder = None
    if args.checkpoint is not None or args.output is not None:
        folder = RunFolder(settings.evaluation_folder(args, "metrics"), result="metrics.json")
        source = args.checkpoint or args.embeddings
        identity = {**given.values, "input_sha256": settings.file_digest(source)}
        if distributed.from_first_rank(lambda: folder.claim(identity)):
            log.info("%s holds the finished result of this command; nothing to do", folder.path)
            if world.main:
                folder.tell(args.json)
            return 0

    # 4. embeddings
    run, prototypes = None, None
    if args.embeddings is not None:
        values, labels, class_names = load_embeddings(args.embeddings, args.split)
        embeddings = {"embeddings": values}
        counts = torch.bincount(labels)
        minority = int(torch.where(counts > 0, counts, counts.sum() + 1).argmin())
    else:
        run = load_pretrained(args.checkpoint, args.data_root, args.num_workers, world.device)
        rows = choose_rows(run, args.split, args.class_balance, args.max_samples)
        # Training draws are never negative; a draw per seed gives every seed other views.
        draw, workers = -1000 - args.seed, args.num_workers
        outputs = embed_shared(
            run.network, run.dataset, run.views, rows, views=args.views, draw=draw, num_workers=workers
        )
        embeddings = dict(zip(("encoder", "projection"), (output.transpose(0, 1) for output in outputs), strict=True))
        labels, class_names = run.dataset.labels[rows], run.description.class_names
        minority = settings.positive_class(None, run.description)
        prototypes = run.objective_state.get("prototypes_KD")

    # 5. metrics
    metrics: dict[str, RepresentationMetrics] = {}
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    dead_samples: dict[str, int] = {}
    for layer, values in embeddings.items():
        living, living_labels, dead = without_dead(values, labels)
        if dead and world.main:
            log.warning("%s: %d samples are left out, no unit is active in a view of theirs", layer, dead)
        dead_samples[layer] = dead
        layers[layer] = living, living_labels
        if len(living_labels) < 2:
            # The whole network is dead: a result too, and no reason to end a sweep.
            metrics[layer] = undefined_metrics(len(values), args.radius, len(class_names))
        else:
            metrics[layer] = representation_metrics(
                living,
                living_labels,
                args.radius,
                num_classes=len(class_names),
                peu_draws=args.peu_draws,
                seed=args.seed,
                device=world.device,
                one_view=len(living) == 1,
                portion=Portion(world.rank, world.size, distributed.sum_with_gradient),
            )
        log_table(layer, metrics, class_names, minority)

    # 6. result
    if world.main:
        result: dict[str, object] = {
            "kind": "metrics",
            "class_names": class_names,
            "minority_class": minority,
            **metrics,
            "dead_samples": dead_samples,
        }
        if run is not None:
            result |= described(run, args.split, args.class_balance)
        result = ledger.complete(result, given.values)
        if folder is not None:
            folder.save_arguments(identity, {**given.sources, "input_sha256": "content of the file"}, {})
            # The last layer is the space of the paper's metrics.
            save_embeddings(folder.path / "embeddings.npz", layers[layer], class_names, prototypes)
            if args.projector and run is not None:
                sprites = run.dataset.images[rows].float() / 255
                names = [class_names[label] for label in labels.tolist()]
                save_projector(folder.path / "tb", embeddings["projection"][0], names, sprites)
            folder.save_json("metrics.json", result)
            draw_figures(folder.path, args.scatter, layers, class_names, prototypes)
        tell(result, None if folder is None else folder.result, args.json)
    return 0


if __name__ == "__main__":
    runtime.run(main)
