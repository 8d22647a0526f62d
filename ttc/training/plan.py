"""What a run is going to do, told before it starts: classes, batches, steps, rare images per batch, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ttc.batches.augment import Augmentation
from ttc.batches.samplers import BatchSampler, share_of_poor_batches
from ttc.losses import METHODS
from ttc.run.escape import counted
from ttc.training.memory import step_bytes

ENOUGH_MINORITY = 1 / 8
"""Share of a batch: below about 32 rare images of 256 the supervised losses collapsed in the first trial runs."""


def plan_lines(
    *,
    network: nn.Module,
    image_shape: tuple[int, int, int],
    sampler: BatchSampler,
    method: str,
    weights: Mapping[str, float],
    views: int,
    epochs: int,
    warmup_epochs: float,
    world_size: int,
    micro_batches: int,
    optimizer: str,
    half_precision: bool,
    copies: int = 0,
) -> list[str]:
    """Describe the run in lines of at most 100 columns.

    Args:
        network: encoder and head.
        image_shape: C, H, W of a view.
        sampler: the batches.
        method: name of the objective.
        weights: term of the loss -> its weight.
        views: views per sample.
        epochs: of the run.
        warmup_epochs: epochs in which the learning rate rises.
        world_size: number of processes.
        micro_batches: pieces in which a batch goes through the network.
        optimizer: its name.
        half_precision: whether activations take half the bytes.
        copies: of the weights, see `step_bytes`.
    """
    batch, steps = sampler.batch_size, sampler.steps_per_epoch
    parameters = sum(p.numel() for p in network.parameters())
    frozen_parameters = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    frozen = f", {frozen_parameters:,} of them frozen" if frozen_parameters else ""
    images = views * (batch // world_size // micro_batches)
    memory = step_bytes(network, image_shape, images, optimizer=optimizer, half_precision=half_precision, copies=copies)
    pieces = f"micro-batches of {batch // micro_batches}, " if micro_batches > 1 else ""
    total = f"{epochs * steps:,} step{'s' * (epochs * steps != 1)}"
    lines = [
        f"method {method}: {views} view{'s' * (views > 1)}, encoder and head of {parameters:,} parameters{frozen}",
        f"batch {batch} in all, {batch // world_size} on each of {world_size} process{'es' * (world_size > 1)}, "
        f"{pieces}{sampler.kind} order",
        f"{counted(epochs, 'epoch')} of {counted(steps, 'step')} = {total}, {epochs * steps * batch:,} samples seen",
        f"memory per process about {memory / 2**20:,.0f} MiB for weights, optimizer and activations",
    ]
    if method in METHODS and not METHODS[method].streamed:
        rows, columns = views * (batch // world_size), views * batch
        lines.append(
            f"{method} forms pair matrices: {rows} x {columns} rows, {4 * rows * columns / 2**20:,.2f} MiB each;"
            " a loss keeps several"
        )
    if len(weights) > 1:
        lines.insert(1, "loss = " + " + ".join(f"{weight:g} {name}" for name, weight in weights.items()))
    if 0 < epochs <= warmup_epochs:
        lines.append(
            f"warm-up of {warmup_epochs:g} epoch{'s' * (warmup_epochs != 1)}: the learning rate never reaches --lr"
        )
    if sampler.minority_class is not None:
        minority, total = sampler.counts[sampler.minority_class], sum(sampler.counts)
        expected = sampler.minority_per_batch()
        line = f"rare images per batch: {expected:.1f} expected"
        if sampler.kind == "shuffle" and not sampler.min_minority:
            line += f"; {100 * share_of_poor_batches(minority, total, batch):.0f} % of batches hold at most one"
        lines.append(line)
    return lines


def views_lines(name: str, views: Augmentation) -> list[str]:
    """Describe how views differ from their image.

    Args:
        name: of the preset that they began with.
        views: with what flags have changed.
    """
    if views.changes_nothing:
        return [f"views: {name}, the images as they are"]
    low, high = (f"{100 * share:g}" for share in views.scale)
    mirrored = ", mirror images" * (views.flip > 0)
    turned = f", turned by up to {views.rotation:g} degrees" * (views.rotation > 0)
    changes = {change: getattr(views, change) for change in ("brightness", "contrast", "saturation", "hue")}
    jitter = [f"{change} {strength:g}" for change, strength in changes.items() if strength and views.jitter]
    colours = f"jitter of {100 * views.jitter:g} % of the views: {', '.join(jitter)}" if jitter else "no jitter"
    return [f"views: {name}, crops of {low} to {high} % of the area{mirrored}{turned}", colours]


def composition_warning(sampler: BatchSampler, method: str) -> str | None:
    """Return a warning when a method that learns from labels gets too few rare images per batch, else None."""
    if sampler.minority_class is None or method == "simclr":
        return None
    expected, enough = sampler.minority_per_batch(), ENOUGH_MINORITY * sampler.batch_size
    if expected >= enough:
        return None
    remedies = [f"--min-minority-per-batch {enough:.0f}", "a larger --batch-size"]
    if sampler.kind != "balanced":
        remedies = ["--batch-sampler balanced", *remedies]
    elif sampler.quota(sampler.minority_class) < enough:  # many classes; no more than the quota can be asked for
        remedies = remedies[1:]
    return (
        f"a batch of {sampler.batch_size} holds {expected:.1f} rare images on average, fewer than about {enough:.0f}: "
        f"supervised losses tend to collapse or to ignore them; try {join_remedies(remedies)}"
    )


def collapse_remedies(sampler: BatchSampler, method: str, learning_rate: float) -> str:
    """Return what may help against a collapse, without what the run does already.

    Args:
        sampler: the batches of the run.
        method: name of its objective.
        learning_rate: its peak.
    """
    remedies = [] if sampler.kind == "balanced" else ["--batch-sampler balanced"]
    if others := [f"--method {name}" for name in ("supmin", "supproto") if name != method]:
        remedies.append(" or ".join(others))
    return join_remedies([*remedies, f"an --lr below {learning_rate:g}"])


def join_remedies(remedies: Sequence[str]) -> str:
    """Join alternatives as in "a, b or c"."""
    return " or ".join(filter(None, (", ".join(remedies[:-1]), remedies[-1])))
