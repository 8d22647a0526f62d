"""NT-Xent, SupCon and SupMin: one loss, three sets of positives.

Shape suffixes: P samples of all ranks, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .batch import Batch
from .contrastive import Contrastive, Positives
from .draws import draw_share
from .registry import method


@method("simclr", "no labels: the two views of an image attract each other")
class SimCLR(Contrastive):
    """NT-Xent: only the other views of the same sample are positives.

    Plain form: `reference.simclr`.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1.
    """

    compiles = True

    def positives(self, batch: Batch) -> Positives:
        """Return no positives but the other views."""
        return Positives()


@method("supcon", "all images of a class attract each other; collapses under binary imbalance")
class SupCon(Contrastive):
    """Supervised contrastive loss: every row of the anchor's class is a positive.

    Plain form: `reference.supcon`.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2 (L_out).
    """

    compiles = True

    def positives(self, batch: Batch) -> Positives:
        """Return the rows of the anchor's class."""
        return Positives(batch.codes(self.num_classes))


@method("supmin", "minority images attract each other, majority images only their other view")
class SupMin(Contrastive):
    """Supervise the minority only: its rows attract their class, majority rows the other view of their sample.

    Plain form: `reference.supmin`.

    Source: Mildenberger et al., "A Tale of Two Classes: Adapting Supervised Contrastive Learning to Binary Imbalanced
    Datasets", CVPR 2025 (SupMin).
    Note: any set of classes can be the supervised one; `ratio_supervised_majority` applies to each other class.
    """

    compiles = True

    def __init__(
        self,
        *,
        num_classes: int,
        minority_class: int | Iterable[int] | None,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        ratio_supervised_majority: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            minority_class: supervised class or classes.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            ratio_supervised_majority: share of the other samples, 0..1, drawn anew each step, that are supervised too.
            seed: seed of the draws.

        Raises:
            ValueError: without a minority class, or for values outside their range.
        """
        super().__init__(num_classes=num_classes, temperature=temperature, base_temperature=base_temperature)
        if minority_class is None:
            raise ValueError("supmin supervises the minority only; give minority_class")
        minority = (minority_class,) if isinstance(minority_class, int) else tuple(minority_class)
        if not minority or not all(0 <= c < num_classes for c in minority):
            raise ValueError(
                f"minority_class {list(minority)} is not within 0..{num_classes - 1}; name existing classes"
            )
        if not 0 <= ratio_supervised_majority <= 1:
            raise ValueError(f"ratio_supervised_majority {ratio_supervised_majority} is not a share; give 0..1")
        self.ratio = ratio_supervised_majority
        self.compiles = self.ratio == 0
        self.seed = seed
        self.minority_K: Tensor
        minority_K = torch.zeros(num_classes, dtype=torch.bool)
        minority_K[list(minority)] = True
        self.register_buffer("minority_K", minority_K, persistent=False)

    def positives(self, batch: Batch) -> Positives:
        """Return the rows of the anchor's class for supervised samples, the other views for the rest."""
        supervised_P = self.supervised(batch)
        return Positives(batch.codes(self.num_classes) * supervised_P[:, None], supervised_P)

    def supervised(self, batch: Batch) -> Tensor:
        """Return True for the minority and for the majority samples drawn in this step [P]."""
        supervised_P = self.minority_K[batch.pool_labels_P]
        if self.ratio == 0:
            return supervised_P
        return supervised_P | draw_share(batch.pool_labels_P, self.num_classes, self.ratio, self.seed, self.step)
