"""What a checkpoint says about its run: plain values from which data, network and views are rebuilt.

This is why evaluation needs no flag but `--checkpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from ttc.batches.augment import Augmentation, ViewGenerator
from ttc.datasets import Dataset, DatasetSettings
from ttc.datasets.pixels.preprocessing import Preprocessing, preprocessing_of_earlier_versions
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.networks import PretrainNetwork

FEATURES = "features"
"""Name in the place of an encoder's where only its features are known."""


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
        minority_class: the rare class's label, or None.
        preprocessing: from an image to the network's input; mean and std are those of the training subset, or of the
            weights that the run started from.
        augmentation: fields of Augmentation.
        split_digest: sha256 of the split table.
        seed: of the run.
        content_digest: of the images, see `prepare.content_digest_of`; None for checkpoints of earlier versions.
        projection_batchnorm: whether the projection head normalises its hidden units over the batch.
        natural_counts: images per class of the source data, before class ratios and draws; None in checkpoints of
            earlier versions.
    """

    method: str
    objective: dict[str, object]
    encoder: dict[str, str | int]
    projection_dim: int | None
    data: dict[str, object]
    class_names: list[str]
    class_counts: list[int]
    minority_class: int | None
    preprocessing: Preprocessing
    augmentation: dict[str, object]
    split_digest: str
    seed: int
    content_digest: str | None = None
    projection_batchnorm: bool = False
    natural_counts: list[int] | None = None

    @staticmethod
    def from_dict(values: Mapping[str, object]) -> Description:
        """Read what a checkpoint of this version or an earlier one holds.

        Raises:
            ValueError: parts of it are missing or wrong.
        """
        fields = dict(values)
        if "preprocessing" in fields:
            prepared = fields["preprocessing"]
            assert isinstance(prepared, Mapping), "the preprocessing is not a mapping"
            return Description(**{**fields, "preprocessing": Preprocessing.from_dict(prepared)})  # type: ignore[arg-type]
        data, encoder, mean, std = fields["data"], fields["encoder"], fields.pop("mean"), fields.pop("std")
        assert isinstance(data, Mapping)
        assert isinstance(encoder, Mapping)
        assert isinstance(mean, list)
        assert isinstance(std, list)
        prepared = preprocessing_of_earlier_versions(
            data["name"], encoder["image_size"], encoder["channels"], data.get("stored_size"), tuple(mean), tuple(std)
        )
        return Description(**fields, preprocessing=prepared)  # type: ignore[arg-type]  # the values of asdict

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
            preprocessing=replace(dataset.preprocessing, mean=tuple(mean), std=tuple(std)),
            augmentation=asdict(augmentation),
            split_digest=dataset.split_digest(),
            content_digest=dataset.content_digest,
            seed=seed,
            projection_batchnorm=projection_batchnorm,
            natural_counts=torch.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist(),
        )

    def network(self, drop_path: float = 0.0) -> PretrainNetwork:
        """Build the network with fresh weights; see `build_encoder` for the argument, on which no weight depends."""
        spec = EncoderSpec(**self.encoder)  # type: ignore[arg-type]  # the values of as_dict
        return PretrainNetwork(build_encoder(spec, drop_path), self.projection_dim, batchnorm=self.projection_batchnorm)

    def view_generator(self) -> ViewGenerator:
        """Build the generator of the views."""
        augmentation = Augmentation(**_tuples(self.augmentation))  # type: ignore[arg-type]  # the values of asdict
        preprocessing = self.preprocessing
        return ViewGenerator(
            augmentation,
            preprocessing.image_size,
            preprocessing.mean,
            preprocessing.std,
            self.seed,
            preprocessing.shown,
        )

    def dataset_settings(self) -> DatasetSettings:
        """Return what `load_dataset` needs to give the same data and splits."""
        # Runs of earlier versions name neither the rule that drew their splits, nor the edition of their decoding.
        earlier: dict[str, object] = {"split_rule": 1, "edition": 1}
        return DatasetSettings(**_tuples(earlier | self.data))  # type: ignore[arg-type]  # the values of asdict


def _tuples(values: dict[str, object]) -> dict[str, object]:
    """Turn lists into tuples, at any depth: a checkpoint may hold either, frozen settings hold tuples."""

    def convert(value: object) -> object:
        return tuple(convert(entry) for entry in value) if isinstance(value, list | tuple) else value

    return {name: convert(value) for name, value in values.items()}
