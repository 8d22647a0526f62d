"""Load a checkpoint and embed images with it: what the evaluation scripts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttc import distributed
from ttc.batches.augment import ViewGenerator
from ttc.datasets import Dataset, batches, load_dataset
from ttc.datasets.splits import untold
from ttc.losses import Objective, build_objective
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.run import checkpoint

SHARED_BATCH = 256
"""Samples at a time where the ranks share the work."""


_FEWEST_ROWS = 16
"""One or two rows take another path through a matrix product than many, with other last digits: they are repeated."""


@dataclass(frozen=True)
class Pretrained:
    """What a checkpoint holds, ready for use.

    Attributes:
        network: encoder and projection with the stored weights, in eval mode, without gradients.
        description: of the run.
        dataset: the same data and splits as in the run.
        views: makes plain and augmented views.
        objective_state: the objective's tensors (prototypes, classifier, ...).
        step: optimizer steps of the checkpoint.
        arguments: flag -> value of the run.
    """

    network: PretrainNetwork
    description: Description
    dataset: Dataset
    views: ViewGenerator
    objective_state: dict[str, Tensor]
    step: int
    arguments: Mapping[str, object] = field(default_factory=dict)


def load_pretrained(
    path: str, data_root: str | None, num_workers: int, device: torch.device, kind: str = checkpoint.PRETRAIN
) -> Pretrained:
    """Load a checkpoint with its network and its data.

    Args:
        path: the checkpoint.
        data_root: where the data lie now, if not where they were.
        num_workers: processes that decode image files.
        device: where the network goes.
        kind: what the checkpoint must be; finetune.py's have the same form as pretrain.py's.

    Raises:
        ValueError: no checkpoint of that kind, or the data have changed since.
    """
    network, description, state = load_network(path, device, [kind])
    with checkpoint.contents(Path(path)):
        objective, step, settings = state["objective"], state["step"], description.dataset_settings()
        arguments = dict(state["args"])
    settings = replace(settings, num_workers=num_workers, data_root=data_root or settings.data_root)
    with untold():
        dataset = load_dataset(settings, description.preprocessing, compare_pixels=False)
    if dataset.split_digest() != description.split_digest:
        raise ValueError(
            f"--checkpoint {path}: the data have changed since, its splits are not those that {settings.name} gives "
            f"now; restore the files of the run, or name them with --data-root"
        )
    if description.content_digest not in (None, dataset.content_digest):
        raise ValueError(
            f"--checkpoint {path}: the images have changed since, some have another content under the same names; "
            "restore the files of the run, or name them with --data-root"
        )
    stored = description.class_names, description.class_counts, description.minority_class
    with checkpoint.contents(Path(path)):  # a damaged file may hold a tensor for each of them
        same = bool(stored == (dataset.class_names, dataset.class_counts("train"), dataset.minority_class))
    if not same:
        raise ValueError(
            f"--checkpoint {path} describes other classes than its data have ({dataset.class_names}); "
            f"the file is damaged, use another checkpoint of the run"
        )
    return Pretrained(network, description, dataset, description.view_generator(), objective, step, arguments)


def load_network(
    path: str, device: torch.device, kinds: Sequence[str] = (checkpoint.PRETRAIN, checkpoint.FINETUNE)
) -> tuple[PretrainNetwork, Description, checkpoint.State]:
    """Load the network of a checkpoint of pretrain.py or finetune.py, which have one form; no data are needed.

    Args:
        path: the checkpoint.
        device: where the network goes.
        kinds: what the checkpoint may be.

    Returns:
        The network in eval mode and without gradients, the run's description, and all that the checkpoint holds.

    Raises:
        ValueError: no checkpoint of that kind.
    """
    state = checkpoint.load(Path(path), *kinds)
    with checkpoint.contents(Path(path)):
        description = Description.from_dict(state["description"])
        network = description.network()
        network.encoder.load_state_dict(state["encoder"])
        if network.projection is not None:
            network.projection.load_state_dict(state["projection"])
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise ValueError(f"checkpoint {path} has weights that are no finite numbers; use an earlier one of the run")
    network.requires_grad_(False).eval().to(device)
    return network, description, state


def stored_objective(run: Pretrained) -> Objective:
    """Build the run's objective with its stored state, on the network's device."""
    return build_stored(run.network, run.description, run.objective_state)


def build_stored(network: PretrainNetwork, description: Description, state: Mapping[str, Tensor]) -> Objective:
    """Build an objective from the description and the objective's state of a checkpoint."""
    objective = build_objective(description.method, **description.objective)  # type: ignore[arg-type]  # its arguments
    objective.attach(network)
    objective.load_state_dict(state)
    return objective.to(next(network.parameters()).device).eval()


def own_classifier(run: Pretrained) -> Callable[[Tensor], NDArray[np.float64]]:
    """Return the classification head that the method itself trained: features [N, F] -> class probabilities [N, K].

    Raises:
        ValueError: the method has none.
    """
    objective = stored_objective(run)
    if (
        objective.classifier(torch.zeros(1, run.network.feature_dim, device=next(run.network.parameters()).device))
        is None
    ):
        raise ValueError(f"--head own: --method {run.description.method} trains no classifier; use --head linear")
    return partial(class_probabilities, objective)


def class_probabilities(objective: nn.Module, features: Tensor) -> NDArray[np.float64]:
    """Return the probabilities [N, K] that an objective's classifier gives for features [N, F]."""
    with torch.no_grad():
        logits = objective.classifier(features.to(next(objective.parameters()).device))  # type: ignore[operator]
    out: NDArray[np.float64] = logits.double().softmax(-1).cpu().numpy()
    return out


def embed(
    network: nn.Module,
    dataset: Dataset,
    generator: ViewGenerator,
    rows: Tensor,
    *,
    views: int,
    draw: int = -1,
    num_workers: int = 0,
    batch_size: int = 512,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Embed samples in eval mode, batch by batch, in the order of `rows`.

    Args:
        network: returns (features, z) for images.
        dataset: the images.
        generator: makes the views.
        rows: [N] int64, rows of the dataset.
        views: augmented views per sample; 0 gives one plain view.
        draw: chooses the augmentations; negative numbers are never used in training.
        num_workers: processes that decode image files.
        batch_size: samples at a time.

    Yields:
        features [B, V, F] and z [B, V, D], float32, on the CPU.
    """
    training, device = network.training, next(network.parameters()).device
    network.eval()
    pieces = torch.split(rows, batch_size)
    with torch.no_grad():
        for ids, images in zip(pieces, batches(dataset.images, pieces, num_workers), strict=True):
            images = images.to(device, non_blocking=True)
            if views:
                inputs = generator.views(images, ids.to(device), torch.full_like(ids, draw), views)
            else:
                inputs = generator.plain(images)[:, None]
            inputs = inputs.flatten(0, 1)
            count = len(inputs)
            if count < _FEWEST_ROWS:
                inputs = inputs[torch.arange(_FEWEST_ROWS, device=device) % count]
            outputs = network(inputs.contiguous(memory_format=torch.channels_last))
            features, z = (output[:count].float().unflatten(0, (len(ids), -1)).cpu() for output in outputs)
            yield features, z
    network.train(training)


def embed_shared(
    network: nn.Module,
    dataset: Dataset,
    generator: ViewGenerator,
    rows: Tensor,
    *,
    views: int,
    draw: int = -1,
    num_workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Embed samples with all ranks sharing the work; see `embed` for the arguments.

    Returns:
        features [N, V, F] and z [N, V, D], float32, on the CPU, in the order of `rows`, on every rank; the same to
        the last bit for any number of ranks.
    """
    # Whole batches are shared out: a row's last digit may depend on the batch that it is computed in.
    batches_of_all = torch.split(torch.arange(len(rows)), SHARED_BATCH)
    places = torch.cat([torch.arange(0), *batches_of_all[distributed.rank() :: distributed.world_size()]])
    # With fewer batches than ranks, a rank without any embeds the first row again to know the widths, and drops it.
    rows_of_rank = rows[places] if len(places) else rows[:1]
    parts = list(
        embed(
            network,
            dataset,
            generator,
            rows_of_rank,
            views=views,
            draw=draw,
            num_workers=num_workers,
            batch_size=SHARED_BATCH,
        )
    )
    device = next(network.parameters()).device
    order = distributed.gather_uneven(places.to(device)).cpu().argsort()
    assert len(order) == len(rows)
    features, z = (
        distributed.gather_uneven(torch.cat(outputs)[: len(places)].to(device)).cpu()[order]
        for outputs in zip(*parts, strict=True)
    )
    return features, z


def predict_shared(
    network: nn.Module, objective: nn.Module, run: Pretrained, rows: Tensor, num_workers: int
) -> NDArray[np.float64]:
    """Return the class probabilities [N, K] of one plain view of samples of a run, all ranks sharing the work."""
    features, _ = embed_shared(network, run.dataset, run.views, rows, views=0, num_workers=num_workers)
    return class_probabilities(objective, features[:, 0])


def embed_training(
    network: nn.Module, dataset: Dataset, generator: ViewGenerator, num_workers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Embed one plain view of all training samples: z [N, D], labels [N], sample ids [N], on the network's device."""
    rows, device = dataset.indices("train"), next(network.parameters()).device
    _, z = embed_shared(network, dataset, generator, rows, views=0, num_workers=num_workers)
    return z[:, 0].to(device), dataset.labels[rows].to(device), rows.to(device)


def without_dead(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Leave out samples of which a view is the zero vector, which has no direction and so no place on the sphere.

    A network that ends in a ReLU gives such rows when all its units are off for an image.

    Args:
        embeddings: [V, N, D].
        labels: [N].

    Returns:
        The embeddings and labels that are left, and how many samples were left out.
    """
    alive = embeddings.any(2).all(0)
    return embeddings[:, alive], labels[alive], int((~alive).sum())


def fixed_subset(dataset: Dataset, most: int) -> Tensor:
    """Return rows to watch during training, of validation, or of training without one.

    Args:
        dataset: the data.
        most: largest number of rows; each class has an equal share of it, or all its rows where it has fewer.

    Returns:
        int64, ascending; the same for every method and ratio.
    """
    split = "val" if len(dataset.indices("val")) else "train"
    rows = dataset.indices(split)
    labels = dataset.labels[rows]
    per_class = most // len(dataset.class_names)
    chosen = [rows[labels == label][:per_class] for label in range(len(dataset.class_names))]
    return torch.cat(chosen).sort().values
