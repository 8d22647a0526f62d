"""What a training loop watches: losses that are not numbers, and embeddings that collapse.

The loop never waits for the device between two log steps: losses stay tensors until `read`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttc import distributed
from ttc.batches.augment import ViewGenerator
from ttc.datasets import Dataset
from ttc.evaluation.probe import balanced_rows, fit_logistic
from ttc.metrics.classification import classification_metrics
from ttc.metrics.representation import representation_metrics
from ttc.models.pretrained import embed, fixed_subset, without_dead
from ttc.run import checkpoint

WATCHED_SAMPLES = 512
"""Most images of the fixed subset, and most that the online probe learns from."""

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
    _names: list[str] = field(default_factory=list)
    _steps: list[int] = field(default_factory=list)
    _losses: list[Tensor] = field(default_factory=list)
    _gradients: dict[str, Tensor] = field(default_factory=dict)
    _batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: int, loss: Tensor, terms: dict[str, Tensor], ids: Tensor, features: Tensor) -> None:
        """Remember a step.

        Args:
            step: number of the step, from 1.
            loss: scalar on the device.
            terms: scalars on the device; their names are the same from one `read` to the next.
            ids: [B] int64 sample ids of this rank.
            features: [B, V, F] encoder outputs; only their norms are kept.

        Raises:
            ValueError: what was restored has other terms.
        """
        norms = features.detach().float().norm(dim=-1).flatten()
        # A loss can come out finite although a row is not, where it leaves out rows that it cannot use.
        loss = torch.where(norms.isfinite().all(), loss.detach(), torch.nan)
        if not self._steps:
            self._names = list(terms)
        if self._names != list(terms):
            raise ValueError(
                f"step {step} has the terms {', '.join(terms)}, the losses in the checkpoint have "
                f"{', '.join(map(str, self._names))}; continue from another checkpoint"
            )
        self._steps.append(step)
        self._losses.append(torch.stack([loss.float(), *(value.float() for value in terms.values())]))
        self._batches.append((ids, norms))

    def add_gradients(self, values: dict[str, Tensor], outputs: tuple[Tensor, ...]) -> None:
        """Remember how hard each term of a combined loss pulls, as the norm of its gradient on the network's outputs.

        Args:
            values: weighted terms with their graph, which stays usable; fewer than two have nothing to compare.
            outputs: the network's outputs.
        """
        # A frozen encoder's features have no gradient.
        outputs = tuple(output for output in outputs if output.requires_grad)
        for name, value in values.items() if len(values) > 1 and outputs else ():
            gradients = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
            squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
            # A term on the features of a frozen encoder pulls at nothing but its own head.
            self._gradients[name] = torch.stack(squares or [outputs[0].new_zeros(())]).sum().sqrt()

    def read(self) -> dict[str, float]:
        """Return the means since the last call, over ranks; waits for the device.

        Raises:
            ValueError: a loss is NaN or infinite; the batch's ids and feature norms are in `bad_step.json`.
        """
        if not self._steps:
            return {}
        loss, *terms = self._checked().mean(0).tolist()
        out = {"train/loss": loss}
        if self.collapse_value:
            out["train/loss_over_collapse"] = loss / self.collapse_value
        out |= {f"train/{name}": value for name, value in zip(self._names, terms, strict=True)}
        if self._gradients:
            norms = distributed.mean(torch.stack(list(self._gradients.values()))).tolist()
            out |= {f"train/gradient_{name}": norm for name, norm in zip(self._gradients, norms, strict=True)}
        for memory in (self._steps, self._losses, self._gradients, self._batches):
            memory.clear()
        return out

    def pending(self) -> dict[str, object]:
        """Return what was added since the last `read`, for a checkpoint; waits for the device.

        Every rank must call it. A run that is stopped between two log steps writes no numbers of its own: it hands on
        the steps since the last one, so that the next line is the uninterrupted run's.

        Returns:
            Nothing, or "names" of the terms, "steps" [n], and "rows" [R, n, 1 + terms] float32 of all R ranks: loss
            and terms of each step.

        Raises:
            ValueError: as `read`, so that no checkpoint holds the weights after a bad step.
        """
        if not self._steps:
            return {}
        self._checked()
        losses = distributed.gather(torch.stack(self._losses)[None])
        return {"names": list(self._names), "steps": list(self._steps), "rows": losses.cpu()}

    def restore(self, pending: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `pending` returned to a process before this one.

        Args:
            pending: as it was returned, by as many ranks or, with another rounding of the means, by more or fewer.
            device: where the steps to come are added.

        Raises:
            LookupError, AttributeError, AssertionError: it has another form; see `checkpoint.contents`.
        """
        if not pending:
            return
        names, steps, losses = list(pending["names"]), list(pending["steps"]), pending["rows"].to(device)
        assert losses.shape[1:] == (len(steps), 1 + len(names)), f"pending losses of shape {tuple(losses.shape)}"
        assert bool(losses[..., 0].isfinite().all()), "pending losses that are not finite"
        of_rank = losses[distributed.rank()] if len(losses) == distributed.world_size() else losses.mean(0)
        self._names, self._steps, self._losses = names, steps, list(of_rank)

    def _checked(self) -> Tensor:
        """Return loss and terms of each step, averaged over ranks: [n, 1 + terms]; every loss is a number."""
        losses = distributed.mean(torch.stack(self._losses))
        bad = (~torch.isfinite(losses[:, 0])).nonzero().flatten().tolist()
        if bad:
            # What was restored is known to be finite and has no batches here.
            self._report(bad[0] - len(self._steps))
        return losses

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
    """Measures the embeddings of a fixed subset during training, and warns when they have collapsed.

    SAA, CAC, effective rank, mean cosines, and a linear probe that learns from as many training images of each class
    as the rarest has and is tested on the held-out subset. The network is in eval mode meanwhile, and nothing is drawn
    from a random generator: a run is the same with and without the watch.

    Source: `ttc.metrics.representation` for the metrics; docs/methods.md for the collapse value of the loss.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        views: ViewGenerator,
        remedies: str = "a lower --lr",
    ) -> None:
        """Choose the subset: validation samples, up to an equal share of each class.

        Args:
            network: returns (features, z) for images; its statistics are not touched.
            dataset: the data.
            views: makes the two fixed views of every sample.
            remedies: what the warning advises to try.
        """
        self._network, self._dataset, self._views = network, dataset, views
        self._remedies = remedies
        self._rows = fixed_subset(dataset, WATCHED_SAMPLES)
        counts = dataset.class_counts("train")
        per_class = min(*counts, WATCHED_SAMPLES // len(counts))
        self._probe_rows = balanced_rows(dataset, dataset.indices("train"), per_class, "watch", dataset.settings.seed)

    def measure(self, epoch: int, latest: Mapping[str, float], collapse_value: float | None = None) -> dict[str, float]:
        """Measure now, and warn when a collapse is found that the last call did not find.

        Args:
            epoch: epochs completed.
            latest: the newest numbers of the run: the training loss, and what the last call returned.
            collapse_value: loss of fully collapsed embeddings now, or None; a method with phases changes it.

        Returns:
            Key -> number, for the log; what is not defined is left out. "watch/collapsed" counts the calls in a row
            that found a collapse: a loss within 1 % of its collapse value, a mean cosine above 0.98, or no active
            unit. Before epoch 3 there is none, since untrained networks look the same.
        """
        values = {**self._geometry(), **self._probe()}
        loss, cosine = latest.get("train/loss"), values.get("watch/mean_cosine")
        near = False
        if collapse_value is not None and loss is not None:
            near = abs(loss - collapse_value) < 0.01 * (abs(collapse_value) or 1.0)
        collapsed = epoch >= 3 and (near or cosine is None or cosine > 0.98)
        values["watch/collapsed"] = latest.get("watch/collapsed", 0.0) + 1.0 if collapsed else 0.0
        if values["watch/collapsed"] == 1.0:
            _log.warning(
                "collapse: mean cosine %s, SAA %s %%, loss %s against %s when all embeddings are equal; try %s",
                "undefined, no unit is active" if cosine is None else f"{cosine:.3f}",
                "/".join(f"{value:.1f}" for key, value in values.items() if "SAA" in key) or "undefined",
                "unknown" if loss is None else f"{loss:.3f}",
                "no known value" if collapse_value is None else f"{collapse_value:.3f}",
                self._remedies,
            )
        return values

    def _geometry(self) -> dict[str, float]:
        parts = [z for _, z in embed(self._network, self._dataset, self._views, self._rows, views=2)]
        embeddings, labels, dead = without_dead(torch.cat(parts).transpose(0, 1), self._dataset.labels[self._rows])
        if len(labels) < 2:
            return {"watch/dead_samples": float(dead)}
        classes = len(self._dataset.class_names)
        metrics = representation_metrics(embeddings, labels, num_classes=classes, peu_draws=0)
        cosine = metrics["mean_cosine"]
        values: dict[str, float | None] = {"watch/dead_samples": float(dead)}
        for name, summary in (("SAA", metrics["SAA"]), ("CAC", metrics["CAC"])):
            values |= {f"watch/{name}_class{label}": value for label, value in enumerate(summary["per_class"])}
        values["watch/mean_cosine"] = cosine["all"]
        values["watch/mean_cosine_within"], values["watch/mean_cosine_between"] = cosine["within"], cosine["between"]
        values["watch/effective_rank"] = metrics["effective_rank"]["all"]
        return {key: value for key, value in values.items() if value is not None}

    def _probe(self) -> dict[str, float]:
        rows, first = torch.cat([self._probe_rows, self._rows]), len(self._probe_rows)
        parts = [features[:, 0] for features, _ in embed(self._network, self._dataset, self._views, rows, views=0)]
        features, labels = torch.cat(parts), self._dataset.labels[rows]
        scores = fit_logistic(features[:first], labels[:first], None)(features[first:])
        metrics = classification_metrics(labels[first:].numpy(), scores, bootstrap=0)
        values = {"auroc": metrics["auroc"]["value"], "balanced_accuracy": metrics["balanced_accuracy"]["value"]}
        return {f"watch/probe_{name}": value for name, value in values.items() if value is not None}

    def charts(self) -> dict[str, list[str]]:
        """Return which numbers belong in one chart, so that the classes can be compared: title -> keys."""
        names = [
            f"class{label} {name}" + (", minority" if label == self._dataset.minority_class else "")
            for label, name in enumerate(self._dataset.class_names)
        ]
        charts = {
            f"{metric} ({'; '.join(names)})": [f"watch/{metric}_class{label}" for label in range(len(names))]
            for metric in ("SAA", "CAC")
        }
        return charts | {"mean cosine": ["watch/mean_cosine_within", "watch/mean_cosine_between"]}


def class_views(dataset: Dataset, views: ViewGenerator) -> dict[str, Tensor]:
    """Return what training sees, as pixels in [0, 1]: one look reveals a wrong augmentation.

    Returns:
        Class name -> [32, C, S, S]: of up to 8 training images each the plain view and three augmented ones.
    """
    pictures, train = {}, dataset.indices("train")
    for label, name in enumerate(dataset.class_names):
        rows = train[dataset.labels[train] == label][:8]
        images = dataset.images[rows].cpu()
        augmented = views.views(images, rows, torch.full_like(rows, -1), 3)
        inputs = torch.cat([views.plain(images)[:, None], augmented], 1).flatten(0, 1)
        pictures[name] = (inputs * views.std + views.mean).clamp(0, 1)
    return pictures
