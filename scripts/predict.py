"""Classify new images, with the linear head that linear_eval.py fitted or with a network's own classifier.

python scripts/predict.py --checkpoint runs/NAME/checkpoints/last.pt --images FOLDER
python scripts/predict.py --checkpoint runs/NAME/finetune/checkpoints/best.pt --head own --images FOLDER

Writes one line per image: id, score (raw output for the positive class, for ranking and thresholds; one column per
class where there are more than two), probability (calibrated on validation, then moved to the prevalence of the source
data or to --deploy-prevalence), prevalence (at which the probability holds), prediction (label), class (name).
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from ttc import flags
from ttc.datasets.images import FileImages, find_bad_images
from ttc.evaluation.heads import Heads, Predict, load_heads
from ttc.evaluation.new_images import encode, read_images
from ttc.evaluation.predictions import read_predictions
from ttc.evaluation.probabilities import NO_CALIBRATOR, check_prevalences, columns, deploy_shares
from ttc.evaluation.probe import PROBES, FittedProbe, module_digest
from ttc.flags import data_settings, settings
from ttc.flags.parser import Parser, real
from ttc.metrics.clinic.calibrators import Calibrator
from ttc.metrics.thresholds import RULES, choose_thresholds
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.models.pretrained import build_stored, load_network
from ttc.run import runtime
from ttc.run.checkpoint import State, contents, write_text
from ttc.run.log import log, start_logging


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Classify new images with a pretrained encoder and its linear head.",
        "python scripts/predict.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt --images FOLDER",
    )
    add = parser.add_argument_group("data").add_argument
    add("--checkpoint", required=True, metavar="FILE", help="checkpoint of pretrain.py or finetune.py")
    add(
        "--images",
        required=True,
        metavar="PATH",
        help="a folder of image files, a CSV table with a column path, or an npz file with an array images",
    )
    add("--path-column", metavar="NAME", help="column of the file in the table, if it is not called path")
    add("--id-column", metavar="NAME", help="column of the image's id in the table, if it is not called id")
    add(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="skip leaves score and prediction of unreadable files empty",
    )
    flags.add_intensity(add)
    add = parser.add_argument_group("head").add_argument
    add(
        "--head",
        metavar="FILE|own",
        help="heads of linear_eval.py, if not RUN/linear_eval/heads.pt; own is the classifier in the checkpoint "
        "itself: of finetune.py, or of a method that trains one",
    )
    add("--probe", choices=PROBES, help="which of its heads; the default is the first of all, fraction and minority")
    add(
        "--threshold",
        type=threshold,
        default=0.5,
        metavar="T|RULE",
        help="two classes: score from which on the positive class is predicted, or the rule that chooses it on the "
        f"validation predictions of linear_eval.py: {', '.join(RULES)}",
    )
    add(
        "--deploy-prevalence",
        type=real(0, 0.999999, above=True),
        metavar="P",
        help="share of the positive class where the images come from; set it where it is known, since probabilities "
        "hold at one prevalence only; the default is that of the run's source data",
    )
    flags.add_runtime(parser, precision=False)
    parser.add_argument_group("output").add_argument(
        "--output", default="predictions.csv", metavar="FILE", help="table to write; - writes to standard output"
    )
    return parser


def threshold(text: str) -> float | str:
    """Read --threshold: a rule's name or a number in [0, 1]."""
    return text if text in RULES else real(0, 1)(text)


def threshold_by(rule: str, path: Path, probe: str, positive_class: int, within: Path | None) -> float:
    """Return the threshold that a rule chooses on the validation predictions of a probe."""
    predictions = read_predictions(path, probe, positive_class, "val", within) if path.is_file() else None
    threshold = (
        None if predictions is None else choose_thresholds((predictions.labels_N == 1, predictions.scores_N))[rule]
    )
    if threshold is None:
        raise ValueError(f"--threshold {rule}: {path} has no validation scores to choose on; give a number")
    log.info("threshold: %.4f, by the rule %s on validation", threshold, rule)
    return threshold


def own_head(network: PretrainNetwork, description: Description, state: State) -> Predict:
    """Return the classifier that a checkpoint holds: features [N, F] -> class probabilities [N, K]."""
    objective = build_stored(network, description, state["objective"])
    device = next(network.parameters()).device

    def predict(features: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = objective.classifier(features.to(device))
        if logits is None:
            raise ValueError(f"--head own: --method {description.method} trains no classifier; leave --head out")
        return logits.double().softmax(-1).cpu().numpy()

    return predict


def matching_heads(
    path: Path, network: PretrainNetwork, description: Description, checkpoint: str, within: Path | None
) -> Heads:
    """Read heads and make sure that they were fitted on this network."""
    if not path.is_file():
        raise ValueError(f"--head {path} is missing; run linear_eval.py --checkpoint {checkpoint}, or use --head own")
    heads = load_heads(path, within)
    if heads.encoder_sha256 != module_digest(network) or heads.class_names != description.class_names:
        raise ValueError(f"--head {path} belongs to another encoder; run linear_eval.py on {checkpoint}")
    return heads


def choose_head(heads: Heads, probe: str | None, path: Path) -> tuple[str, FittedProbe]:
    """Return the name of the probe and its head: the one asked for, or the first of all, fraction and minority."""
    name = probe or next((usual for usual in ("all", "fraction", "minority") if usual in heads.heads), None)
    if name is None or name not in heads.heads:
        raise ValueError(f"--head {path} has the probes {', '.join(heads.heads) or 'none'}; run linear_eval.py again")
    log.info("head: probe %s of %s", name, path)
    return name, heads.heads[name]


def own_calibrator(state: State, heads: Path, network: PretrainNetwork, within: Path | None) -> Calibrator | None:
    """Return the calibrator of a checkpoint's own classifier, in itself (finetune.py) or in a file of heads."""
    if isinstance(stored := state.get("extra", {}).get("calibrator"), dict):
        return Calibrator.of(stored)
    if not heads.is_file():
        return None
    stored_heads = load_heads(heads, within)
    return stored_heads.calibrators.get("own") if stored_heads.encoder_sha256 == module_digest(network) else None


def probabilities_of(
    scores: np.ndarray, calibrator: Calibrator | None, description: Description, prevalence: float | None, positive: int
) -> tuple[np.ndarray, float | None]:
    """Return the calibrated probabilities [N, K], NaN without a calibrator, and the prevalence at which they hold."""
    if calibrator is None:
        if prevalence is not None:
            raise ValueError(f"--deploy-prevalence {prevalence:g}: this head has no probabilities; leave it out")
        log.warning(NO_CALIBRATOR, "this head", "run linear_eval.py or finetune.py again in a new folder")
        return np.full_like(scores, np.nan), None
    shares, source = deploy_shares(description, calibrator, prevalence, positive)
    log.info("probability: holds where %.4g %% are positive, by %s", 100 * shares[positive], source)
    return calibrator(scores, shares), shares[positive]


def as_csv(
    ids: list[str],
    rows: list[int],
    scores: np.ndarray,
    probabilities: np.ndarray,
    prevalence: float | None,
    class_names: list[str],
    positive: int,
    threshold: float,
) -> str:
    """Format the predictions of the images in `rows`; other ids get empty cells, and so do missing probabilities."""
    classes = scores.shape[1]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    probability_columns = columns("probability", probabilities, positive)
    names = [*columns("score", scores, positive), *probability_columns, "prevalence"]
    writer.writerow(["id", *names, "prediction", "class"])
    place_of = {row: place for place, row in enumerate(rows)}
    for row, sample_id in enumerate(ids):
        if row not in place_of:
            writer.writerow([sample_id, *[""] * (len(names) + 2)])
            continue
        place = place_of[row]
        scores_K = scores[place]
        label = int(scores_K.argmax()) if classes > 2 else positive if scores_K[positive] >= threshold else 1 - positive
        shown_scores = [scores_K[positive]] if classes == 2 else scores_K
        calibrated = [*(float(column[place]) for column in probability_columns.values()), prevalence]
        shown = [*map(float, shown_scores), *(calibrated if prevalence is not None else [""] * len(calibrated))]
        writer.writerow([sample_id, *shown, label, class_names[label]])
    return file.getvalue()


def main() -> int:
    """Load, encode, classify, save."""
    # 1. parse
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)

    # 2. model
    network, description, state = load_network(args.checkpoint, runtime.pick_device(args.device))
    run = settings.run_of(args.checkpoint)
    positive, probe = settings.positive_class(None, description), "own"
    within = None if args.head not in (None, "own") else run
    if args.head == "own":
        with contents(Path(args.checkpoint)):
            predictions, head = run / "predictions.csv", own_head(network, description, state)
            calibrator = own_calibrator(state, run / "linear_eval" / "heads.pt", network, run)
    else:
        path = Path(args.head) if args.head else run / "linear_eval" / "heads.pt"
        predictions = path.with_name("predictions.csv")
        heads = matching_heads(path, network, description, args.checkpoint, within)
        positive, (probe, head) = heads.positive_class, choose_head(heads, args.probe, path)
        calibrator = heads.calibrators.get(probe)
    check_prevalences([args.deploy_prevalence] if args.deploy_prevalence else None, len(description.class_names))
    names = description.class_names
    log.info("positive class: %s", names[positive])
    limit = args.threshold
    if isinstance(limit, str):
        limit = threshold_by(limit, predictions, probe, positive, within)

    # 3. images
    columns = args.path_column, args.id_column
    ids, images = read_images(args.images, description, *columns, data_settings.intensity(args.intensity))
    rows = list(range(len(ids)))
    if args.on_bad_image == "skip" and isinstance(images, FileImages):
        bad = dict(find_bad_images(images))
        rows = [row for row in rows if row not in bad]
        for row, reason in bad.items():
            log.warning("left out image %s: %s", images.paths[row], reason)
        images = replace(images, paths=[images.paths[row] for row in rows])
        if not rows:
            raise ValueError(f"--images {args.images}: no image can be read; pass readable images")

    # 4. predictions
    features, _ = encode(network, description, images, args.num_workers)
    scores = head(features)
    if not np.isfinite(scores).all():
        raise ValueError(f"--checkpoint {args.checkpoint}: some scores are not finite; use another checkpoint")
    probabilities, prevalence = probabilities_of(scores, calibrator, description, args.deploy_prevalence, positive)
    table = as_csv(ids, rows, scores, probabilities, prevalence, names, positive, limit)
    if args.output == "-":
        sys.stdout.write(table)
    else:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(args.output), table)
        log.info("wrote %d predictions to %s", len(rows), args.output)
    return 0


if __name__ == "__main__":
    runtime.run(main)
