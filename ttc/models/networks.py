"""The projection head and the network that pretraining trains, whose encoder may be frozen.

Legend: N images, C channels, H x W pixels, F encoder features, D projection dimensions.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ttc.models.layers import stages
from ttc.run.folder import shorten


class PretrainNetwork(nn.Module):
    """Encoder and projection head: what the contrastive methods train, and what DDP wraps.

    The projection is F -> F -> D with one ReLU, unit length at the end. Methods on features have none.

    Source: Mildenberger et al., CVPR 2025: projector 2048-2048-128 without BatchNorm.
    """

    def __init__(self, encoder: nn.Module, projection_dim: int | None, *, batchnorm: bool = False) -> None:
        """Join the encoder and a new projection.

        Args:
            encoder: module with `feature_dim`.
            projection_dim: D, or None for a network without one.
            batchnorm: normalise the projection's hidden units over the batch, as SimCLR does and the paper does not.
        """
        super().__init__()
        self.encoder = encoder
        self.feature_dim = int(encoder.feature_dim)  # type: ignore[arg-type]  # every encoder of build_encoder has it
        self.projection: nn.Module | None = None
        # By name: SyncBatchNorm takes the place of modules.
        self._frozen: frozenset[str] = frozenset()
        if projection_dim is not None:
            hidden = [nn.BatchNorm1d(self.feature_dim)] if batchnorm else []
            self.projection = nn.Sequential(
                nn.Linear(self.feature_dim, self.feature_dim),
                *hidden,
                nn.ReLU(True),
                nn.Linear(self.feature_dim, projection_dim),
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embed images.

        Args:
            images: [N, C, H, W] float, normalised.

        Returns:
            features [N, F] and z: [N, D] float32 of unit length, or the features again without a projection.
        """
        return self.project(self.encoder(images))

    def project(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, F] and z, as `forward` does."""
        if self.projection is None:
            return features, features
        # Unit length in float32: in half precision the rounding alone moves the cosines by a thousandth.
        return features, functional.normalize(self.projection(features).float(), dim=1)

    def freeze(self, layer: str | None) -> None:
        """Freeze the encoder, as a whole or from its first layer up to and including a named one.

        What is frozen stays in eval mode too, so that BatchNorm's statistics stay and dropout is off.

        Args:
            layer: any module of the encoder, or None for the whole encoder.

        Raises:
            ValueError: there is no such layer, or no layer is left to learn.
        """
        names = [name for name, _ in self.encoder.named_parameters()]
        end = len(names) if layer is None else _end_of(self.encoder, names, layer)
        learning = names[end:]
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(name in learning)
        self._frozen = frozenset(
            module for module, _ in self.encoder.named_modules()
            if any(_inside(module, name) for name in names[:end])
            and not any(_inside(module, name) for name in learning)
        )  # fmt: skip
        self.train(self.training)

    def train(self, mode: bool = True) -> PretrainNetwork:
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for name, module in self.encoder.named_modules():
            if name in self._frozen:
                module.train(False)
        return self


def _inside(module: str, parameter: str) -> bool:
    return not module or parameter.startswith(f"{module}.")


def _end_of(encoder: nn.Module, names: list[str], layer: str) -> int:
    """Return how many parameters come before the end of a layer."""
    inside = [place for place, name in enumerate(names) if name.startswith(f"{layer}.")]
    if not inside or inside[-1] == len(names) - 1:
        reason = "freezes the whole encoder; use --freeze-encoder, or" if inside else "is no layer with weights;"
        later = stages(encoder)
        first = [name for name, part in encoder.named_children() if list(part.parameters())]
        stem = first[: first.index(later[0].partition(".")[0])]
        raise ValueError(f"--freeze-until {layer} {reason} choose one of {shorten([*stem, *later[:-1]], 9)}")
    return inside[-1] + 1
