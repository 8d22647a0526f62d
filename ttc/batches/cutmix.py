"""Minority CutMix: rare images get a patch of a common one, so that the network sees them on more backgrounds.

Legend: B samples of this process, P samples of all processes, V views, C channels, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttc import distributed
from ttc.batches.augment import uniform

_NUMBERS = 5
_PROBABILITY = 0.5


def minority_cutmix(
    views_BVCSS: Tensor,
    minority_B: Tensor,
    ids_B: Tensor,
    draws_B: Tensor,
    *,
    area: float,
    seed: int,
) -> Tensor:
    """Paste a square patch of a random majority view of the batch into half of the minority views; labels stay.

    Each minority view gets, with probability 0.5, a square of `area` * U(0, 1) of the image, with its centre anywhere
    and clipped at the border, copied from the same place of a majority view. Majority views never change.

    Args:
        views_BVCSS: [B, V, C, S, S] float, augmented views.
        minority_B: [B] bool, which samples are rare.
        ids_B: [B] int64, global sample ids.
        draws_B: [B] int64, how often each sample was drawn before.
        area: largest share of the image that a patch covers, in (0, 1].
        seed: of the run.

    Returns:
        [B, V, C, S, S]; the input where the batch holds no majority view.

    Source: after Yun et al., "CutMix", ICCV 2019, with the label of the image below the patch.
    """
    views, size = views_BVCSS.shape[1], views_BVCSS.shape[-1]
    # The donors come from the batch of all processes, so that the result does not depend on their number.
    pool_P, majority_P = distributed.gather(views_BVCSS), ~distributed.gather(minority_B)
    # Stable order: majority samples first. Counting instead of indexing by a mask keeps the host from waiting.
    order_P, count = (~majority_P).long().argsort(stable=True), majority_P.sum()
    # The complement keeps these numbers apart from those of the augmentation, which uses the seed itself.
    random_BVR = uniform(~seed, draws_B.to(ids_B.device), ids_B, views, _NUMBERS)
    place_BV = (random_BVR[..., 0] * count).long().clamp(max=len(order_P) - 1)
    view_BV = ((random_BVR[..., 0] * count).frac() * views).long().clamp(max=views - 1)
    donors_BVCSS = pool_P[order_P[place_BV], view_BV]
    half_BV = 0.5 * (area * random_BVR[..., 1]).sqrt() * size
    pixel_S = torch.arange(size, device=ids_B.device) + 0.5
    inside_x = (pixel_S - random_BVR[..., 2:3] * size).abs() <= half_BV[..., None]
    inside_y = (pixel_S - random_BVR[..., 3:4] * size).abs() <= half_BV[..., None]
    chosen_BV = (random_BVR[..., 4] < _PROBABILITY) & minority_B[:, None] & (count > 0)
    patch_BV1SS = (inside_y[..., :, None] & inside_x[..., None, :] & chosen_BV[..., None, None])[:, :, None]
    return torch.where(patch_BV1SS, donors_BVCSS, views_BVCSS)


@dataclass(frozen=True)
class MinorityCutMix:
    """Minority CutMix as a run has set it up, which may be: not at all.

    Attributes:
        area: largest share of a rare image that a patch covers, in [0, 1]; 0 leaves all images alone.
        minority_class: the rare label; needed unless area is 0.
        seed: of the run.
    """

    area: float
    minority_class: int | None
    seed: int

    def __call__(self, views_BVCSS: Tensor, labels_B: Tensor, ids_B: Tensor, draws_B: Tensor) -> Tensor:
        """Return the views with patches; see `minority_cutmix`."""
        if self.area == 0:
            return views_BVCSS
        assert self.minority_class is not None
        rare_B = torch.eq(labels_B, self.minority_class)
        return minority_cutmix(views_BVCSS, rare_B, ids_B, draws_B, area=self.area, seed=self.seed)
