"""Decoupled contrastive learning, in plain torch over all pairs of rows.

Shape suffixes: A local rows, M rows of all ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch
from .contrastive import temperature_factor
from .objective import Objective
from .registry import method


@method("decoupled", "NT-Xent whose denominator leaves out the positives", streamed=False)
class Decoupled(Objective):
    """NT-Xent without the views of the anchor's own image in the denominator.

    Source: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, equation 6.
    """

    def __init__(self, *, num_classes: int, temperature: float = 0.07, base_temperature: float | None = None) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
        """
        super().__init__(num_classes=num_classes)
        self.temperature, self.factor = temperature, temperature_factor(temperature, base_temperature)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over the local anchors."""
        logits_AM = batch.anchors_AD @ batch.columns_MD.T / self.temperature
        row_A = batch.first_row + torch.arange(len(logits_AM), device=logits_AM.device)
        row_M = torch.arange(logits_AM.shape[1], device=logits_AM.device)
        image_AM = row_A[:, None] // batch.views == row_M // batch.views
        positive_AM = image_AM & (row_A[:, None] != row_M)
        lse_A = logits_AM.masked_fill(image_AM, -torch.inf).logsumexp(1)
        losses_A = lse_A - (logits_AM * positive_AM).sum(1) / max(1, batch.views - 1)
        # Without another image there is nothing to tell apart.
        return self.factor * losses_A.mean() if batch.columns_MD.shape[0] > batch.views else 0.0 * logits_AM.sum()
