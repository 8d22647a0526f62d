"""What a checkpoint says about its run: plain values from which data, network and views are built again.

This is why evaluation needs no flag but `--checkpoint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ttc.batches.augment import Augmentation, ViewGenerator
from ttc.datasets import Dataset, DatasetSettings
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.networks import PretrainNetwork


@dataclass(frozen=True)
class Description:
    """The plain values.

    Attributes:
        method: name of the objective.
        objective: keyword arguments of `build_objective`.
        encoder: fields of EncoderSpec.
        projection_dim: D, or None where the method works on the encoder's features.
        data: fields of DatasetSettings.
        class_names: in label order.
        class_counts: training samples per class.
        minority_class: the rare label, or None.
        mean: per channel, of pixel values in [0, 1], of the training subset or of the weights that were started from.
        std: the same, > 0.
        augmentation: fields of Augmentation.
        split_digest: sha256 of the split table.
        seed: of the run.
        projection_batchnorm: whether the head normalises its hidden units over the batch.
    """

    method: str
    objective: dict[str, object]
    encoder: dict[str, str | int]
    projection_dim: int | None
    data: dict[str, object]
    class_names: list[str]
    class_counts: list[int]
    minority_class: int | None
    mean: list[float]
    std: list[float]
    augmentation: dict[str, object]
    split_digest: str
    seed: int
    projection_batchnorm: bool = False

    @staticmethod
    def of(
        *,
        method: str,
        objective: dict[str, object],
        spec: EncoderSpec,
        projection_dim: int | None,
        dataset: Dataset,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
        augmentation: Augmentation,
        seed: int,
        projection_batchnorm: bool = False,
    ) -> Description:
        """Describe a run that is about to start; see the class for the arguments.

        The normalisation is mean and std of the weights that the encoder starts from, if they are to be used.
        """
        mean, std = normalisation or (dataset.mean, dataset.std)
        return Description(
            method=method,
            objective=objective,
            encoder=spec.as_dict(),
            projection_dim=projection_dim,
            data=asdict(dataset.settings),
            class_names=dataset.class_names,
            class_counts=dataset.class_counts("train"),
            minority_class=dataset.minority_class,
            mean=list(mean),
            std=list(std),
            augmentation=asdict(augmentation),
            split_digest=dataset.split_digest(),
            seed=seed,
            projection_batchnorm=projection_batchnorm,
        )

    def network(self, drop_path: float = 0.0) -> PretrainNetwork:
        """Build the network with fresh weights; see `build_encoder` for the argument, which no weight depends on."""
        spec = EncoderSpec(**self.encoder)  # type: ignore[arg-type]  # the values of as_dict
        return PretrainNetwork(build_encoder(spec, drop_path), self.projection_dim, batchnorm=self.projection_batchnorm)

    def view_generator(self) -> ViewGenerator:
        """Build what makes the views."""
        augmentation = Augmentation(**_tuples(self.augmentation))  # type: ignore[arg-type]  # the values of asdict
        size = int(self.encoder["image_size"])
        return ViewGenerator(augmentation, size, tuple(self.mean), tuple(self.std), self.seed)

    def dataset_settings(self) -> DatasetSettings:
        """Return what `load_dataset` needs to give the same data and splits."""
        # A run of an earlier version does not name the rule that it drew its splits by.
        return DatasetSettings(**_tuples({"split_rule": 1, **self.data}))  # type: ignore[arg-type]  # the values of asdict


def _tuples(values: dict[str, object]) -> dict[str, object]:
    """Turn lists into tuples, at any depth: a checkpoint may hold either, frozen settings hold tuples."""

    def convert(value: object) -> object:
        return tuple(convert(each) for each in value) if isinstance(value, list | tuple) else value

    return {name: convert(value) for name, value in values.items()}
