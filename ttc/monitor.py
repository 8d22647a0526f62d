"""What a training loop watches: losses that are not numbers, and embeddings that collapse.

The loop never waits for the device between two log steps: losses stay tensors until `read`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ttc import checkpoint, distributed
from ttc.augment import ViewGenerator
from ttc.datasets import Dataset
from ttc.metrics.representation import representation_metrics
from ttc.pretrained import embed, fixed_subset, without_dead

_log = logging.getLogger("ttc")


@dataclass
class LossMonitor:
    """Averages the loss between two log steps and stops the run when it is no longer a number.

    Attributes:
        folder: run folder, where the report of a bad step goes.
        collapse_value: loss of fully collapsed embeddings, or None where there is no such value.
    """

    folder: Path
    collapse_value: float | None
    _steps: list[int] = field(default_factory=list)
    _losses: list[Tensor] = field(default_factory=list)
    _terms: list[dict[str, Tensor]] = field(default_factory=list)
    _gradients: dict[str, Tensor] = field(default_factory=dict)
    _batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        """Whether steps were added since the last `read`."""
        return bool(self._steps)

    def add(self, step: int, loss: Tensor, terms: dict[str, Tensor], ids: Tensor, features: Tensor) -> None:
        """Remember a step.

        Args:
            step: number of the step, from 1.
            loss: scalar on the device.
            terms: scalars on the device.
            ids: [B] int64 sample ids of this rank.
            features: [B, V, F] encoder outputs; only their norms are kept.
        """
        norms = features.detach().float().norm(dim=-1).flatten()
        self._steps.append(step)
        # A loss can come out finite although a row is not, where it leaves out rows that it cannot use.
        self._losses.append(torch.where(norms.isfinite().all(), loss.detach(), torch.nan))
        self._terms.append(terms)
        self._batches.append((ids, norms))

    def add_gradients(self, values: dict[str, Tensor], rows: tuple[Tensor, ...]) -> None:
        """Remember how hard each term of a combined loss pulls, as the norm of its gradient on the network's outputs.

        Args:
            values: weighted terms with their graph, which stays usable; fewer than two have nothing to compare.
            rows: the network's outputs.
        """
        for name, value in values.items() if len(values) > 1 else ():
            gradients = torch.autograd.grad(value, rows, retain_graph=True, allow_unused=True)
            squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
            self._gradients[name] = torch.stack(squares).sum().sqrt()

    def read(self) -> dict[str, float]:
        """Return the means since the last call, over ranks; waits for the device.

        Raises:
            ValueError: a loss is NaN or infinite; the batch's ids and feature norms are in `bad_step.json`.
        """
        if not self._steps:
            return {}
        losses = distributed.mean(torch.stack(self._losses))
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            self._report(bad[0])
        names = self._terms[-1]
        values = {f"train/{name}": torch.stack([each[name].float() for each in self._terms]).mean() for name in names}
        values |= {f"train/gradient_{name}": norm for name, norm in self._gradients.items()}
        out = {"train/loss": float(losses.mean())}
        if self.collapse_value is not None:
            out["train/loss_over_collapse"] = out["train/loss"] / self.collapse_value
        if values:
            means = distributed.mean(torch.stack(list(values.values()))).tolist()
            out.update(zip(values, means, strict=True))
        for pending in (self._steps, self._losses, self._terms, self._gradients, self._batches):
            pending.clear()
        return out

    def _report(self, index: int) -> None:
        ids, norms = self._batches[index]
        ids, norms = distributed.gather(ids), distributed.gather(norms)
        step, path = self._steps[index], self.folder / "bad_step.json"
        if distributed.rank() == 0:
            import json

            finite = [value if math.isfinite(value) else None for value in norms.tolist()]
            report = {"step": step, "sample_ids": ids.tolist(), "feature_norms": finite}
            checkpoint.write_text(path, json.dumps(report) + "\n")
        raise ValueError(
            f"the loss of step {step} is not a finite number; see {path} for the batch; "
            f"lower --lr, use --precision fp32 or --clip-gradient-norm, with another --output"
        )


class CollapseWatch:
    """Computes SAA, CAC and effective rank of a fixed subset during training and warns once when they vanish.

    Source: METRICS section 1 for the metrics; METHODS section 2.1 for the collapse value of the loss.
    """

    def __init__(
        self, network: nn.Module, dataset: Dataset, views: ViewGenerator, collapse_value: float | None
    ) -> None:
        """Choose the subset: at most 512 validation samples, or training samples where there is no validation.

        Args:
            network: returns (features, z) for images; its statistics are not touched.
            dataset: the data.
            views: makes the two fixed views of every sample.
            collapse_value: loss of fully collapsed embeddings, or None.
        """
        self._network, self._dataset, self._views = network, dataset, views
        self._collapse_value, self._warned = collapse_value, False
        self._rows = fixed_subset(dataset, 512)

    def measure(self, epoch: int, loss: float | None) -> dict[str, float]:
        """Measure now, and warn the first time that the embeddings have collapsed.

        Args:
            epoch: epochs completed.
            loss: recent training loss, or None.

        Returns:
            Key -> number, for the log; what is not defined is left out.
        """
        parts = [z for _, z in embed(self._network, self._dataset, self._views, self._rows, views=2)]
        embeddings, labels, dead = without_dead(torch.cat(parts).transpose(0, 1), self._dataset.labels[self._rows])
        if len(labels) < 2:
            _log.warning("collapse: no unit of the network is active for any watched image; lower --lr")
            return {"watch/dead_samples": float(dead)}
        classes = len(self._dataset.class_names)
        found = representation_metrics(embeddings, labels, num_classes=classes, peu_draws=0)
        values: dict[str, float] = {}
        for name, summary in (("SAA", found["SAA"]), ("CAC", found["CAC"])):
            for label, value in enumerate(summary["per_class"]):
                if value is not None:
                    values[f"watch/{name}_class{label}"] = value
        values["watch/dead_samples"] = float(dead)
        cosine, rank = found["mean_cosine"]["all"], found["effective_rank"]["all"]
        assert cosine is not None  # it takes two rows, and there are more
        values["watch/mean_cosine"] = cosine
        if rank is not None:  # rows that all coincide have none
            values["watch/effective_rank"] = rank
        near = self._collapse_value is not None and loss is not None and abs(loss / self._collapse_value - 1) < 0.01
        if not self._warned and epoch >= 3 and (near or values["watch/mean_cosine"] > 0.98):
            self._warned = True
            _log.warning(
                "collapse: mean cosine %.3f, SAA %s %%, loss %s against %s when all embeddings are equal; "
                "try --batch-sampler balanced, --method supmin or supproto, or a lower --lr",
                values["watch/mean_cosine"],
                "/".join(f"{value:.1f}" for key, value in values.items() if "SAA" in key),
                "unknown" if loss is None else f"{loss:.3f}",
                "no known value" if self._collapse_value is None else f"{self._collapse_value:.3f}",
            )
        return values

    def sample_views(self) -> Tensor:
        """Return two views of 16 samples as pixels in [0, 1], [32, C, S, S]: a look catches a wrong preset."""
        rows = self._rows[:16]
        inputs = self._views.views(self._dataset.images[rows].cpu(), rows, torch.full_like(rows, -1), 2).flatten(0, 1)
        return (inputs * self._views.std + self._views.mean).clamp(0, 1)
