"""Build an objective by name, check its settings, add further terms.

Any contrastive method can carry the terms; `Objective.extra_terms` holds them.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from .batch import Batch
from .classifier import logits_of, seeded_linear
from .objective import Objective
from .prototypes import PrototypePull
from .registry import METHODS
from .supervised import SimCLR

# What `build_objective` offers to every method; a method takes those that its constructor names.
_CONTEXT = (
    "num_classes", "minority_class", "class_counts", "train_counts", "schedule_steps", "feature_dim", "projection_dim",
    "seed",
)  # fmt: skip


def settings_of(name: str) -> dict[str, object]:
    """Return the settings that a method knows, with their defaults.

    Raises:
        ValueError: for a name that is not registered.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} does not exist; choose one of {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name].objective).parameters
    return {key: p.default for key, p in parameters.items() if key not in _CONTEXT}


def build_objective(
    name: str,
    *,
    num_classes: int = 2,
    minority_class: int | Iterable[int] | None = None,
    class_counts: Sequence[int] | None = None,
    train_counts: Sequence[int] | None = None,
    schedule_steps: int | None = None,
    feature_dim: int | None = None,
    projection_dim: int = 128,
    temperature: float | None = None,
    base_temperature: float | None = None,
    seed: int = 0,
    ce_weight: float = 0.0,
    instance_weight: float = 0.0,
    prototype_weight: float = 0.0,
    **settings: object,
) -> Objective:
    """Build the objective of a method.

    Args:
        name: one of `METHODS`.
        num_classes: number of classes.
        minority_class: class or classes that count as the minority.
        class_counts: training samples per class, as the batches present them.
        train_counts: training samples per class, each counted once; None for `class_counts`.
        schedule_steps: steps of the whole run, for methods that change on the way.
        feature_dim: size of the encoder's features, for methods with a classifier.
        projection_dim: dimension of the embeddings.
        temperature: None for the method's own default.
        base_temperature: None for the method's own default, in most cases the temperature.
        seed: seed of weights, prototypes and draws.
        ce_weight: weight of an added cross-entropy on a linear head over the features.
        instance_weight: share of NT-Xent in the loss.
        prototype_weight: weight of an added prototype pull.
        **settings: settings of the method, see `settings_of`.

    Returns:
        The objective.

    Raises:
        ValueError: for an unknown method or setting, or a value of the wrong kind or out of range.
    """
    for key, value in (("temperature", temperature), ("base_temperature", base_temperature)):
        if value is not None:
            settings[key] = value
    if isinstance(minority_class, Iterable):  # once, should it be an iterator
        minority_class = tuple(minority_class)
    sizes = (feature_dim, projection_dim, seed)
    values = (num_classes, minority_class, class_counts, train_counts, schedule_steps, *sizes)
    context = dict(zip(_CONTEXT, values, strict=True))
    weights = {"ce_weight": ce_weight, "instance_weight": instance_weight, "prototype_weight": prototype_weight}
    _check_settings(name, settings, {**context, **weights})
    for key in ("feature_dim", "projection_dim"):
        if isinstance(size := context[key], int) and size < 1:
            raise ValueError(f"{key} {size} is no dimension; give at least 1")
    constructor: Callable[..., Objective] = METHODS[name].objective
    accepted = inspect.signature(constructor).parameters
    objective = constructor(**{k: v for k, v in context.items() if k in accepted}, **settings)
    add_terms(
        objective,
        temperature=getattr(objective, "temperature", 0.07),
        feature_dim=feature_dim,
        projection_dim=projection_dim,
        seed=seed,
        **weights,
    )
    return objective


def _check_settings(name: str, settings: Mapping[str, object], shared: Mapping[str, object]) -> None:
    """Check that the method has the settings, and that every value is of the kind that its annotation tells.

    Raises:
        ValueError: for an unknown setting, NaN, infinity, or a value of another kind.
    """
    known = settings_of(name)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"method {name} has no setting {', '.join(unknown)}; it knows: {', '.join(known) or 'none'}")
    for function, values in ((METHODS[name].objective, settings), (build_objective, shared)):
        parameters = inspect.signature(function).parameters
        for key, value in values.items():
            _check_kind(key, value, parameters[key])


def _check_kind(key: str, value: object, parameter: inspect.Parameter) -> None:
    annotation, default = str(parameter.annotation), parameter.default
    if value is default:
        return
    hint = "" if default in (None, inspect.Parameter.empty) else f"; the default is {default}"
    entries = [value]
    if isinstance(value, Iterable) and not isinstance(value, str):
        if isinstance(value, Mapping) or not re.search("Sequence|Iterable", annotation):
            raise ValueError(f"{key} {value} is not a single value{hint}")
        entries = list(value)
    for entry in entries:
        # A zero-dimensional tensor or array counts as the number in it.
        number = entry.item() if hasattr(entry, "item") else entry
        if "bool" in annotation:
            fits, kind = isinstance(number, bool), "true or false"
        elif "float" in annotation:
            fits = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            kind = "a finite number"
        elif "int" in annotation:
            fits, kind = isinstance(number, int) and not isinstance(number, bool), "a whole number"
        else:
            fits, kind = "str" not in annotation or isinstance(number, str), "a word"
        if not fits:
            raise ValueError(f"{key} {value} is not {kind}{hint}")


def add_terms(
    objective: Objective,
    *,
    temperature: float,
    feature_dim: int | None,
    projection_dim: int,
    seed: int,
    ce_weight: float,
    instance_weight: float,
    prototype_weight: float,
) -> None:
    """Make the loss (1 - instance_weight) * L + instance_weight * NT-Xent + ce_weight * CE + prototype_weight * pull.

    Raises:
        ValueError: for a weight that is out of range or does not go with the objective.
    """
    for name, weight in (("ce_weight", ce_weight), ("prototype_weight", prototype_weight)):
        if weight < 0:
            raise ValueError(f"{name} {weight} is negative; give 0 to leave the term out")
    if not 0 <= instance_weight <= 1:
        raise ValueError(f"instance_weight {instance_weight} is not a share; give 0..1")
    if objective.space == "features" and ce_weight + instance_weight + prototype_weight > 0:
        raise ValueError("ce_weight, instance_weight and prototype_weight add to contrastive methods only; give 0")
    classes = objective.num_classes
    if instance_weight > 0:
        objective.method_weight = 1.0 - instance_weight
        _add(objective, "instance", instance_weight, SimCLR(num_classes=classes, temperature=temperature))
    if ce_weight > 0:
        if feature_dim is None:
            raise ValueError(f"ce_weight {ce_weight} needs a head over the encoder's features; give feature_dim")
        objective.needs_features = True
        head = HeadCrossEntropy(num_classes=classes, feature_dim=feature_dim, seed=seed)
        _add(objective, "cross_entropy", ce_weight, head)
    if prototype_weight > 0:
        pull = PrototypePull(num_classes=classes, projection_dim=projection_dim, temperature=temperature, seed=seed)
        _add(objective, "prototype", prototype_weight, pull)


def _add(objective: Objective, name: str, weight: float, term: Objective) -> None:
    objective.extra_terms[name] = term
    objective.extra_weights[name] = weight


class HeadCrossEntropy(Objective):
    """Cross-entropy of a linear head over the encoder's features, all views as samples."""

    def __init__(self, *, num_classes: int, feature_dim: int, seed: int = 0) -> None:
        """Create the term.

        Args:
            num_classes: number of classes.
            feature_dim: size F of the features.
            seed: seed of the head's weights.
        """
        super().__init__(num_classes=num_classes)
        self.head = seeded_linear(feature_dim, num_classes, seed)

    def classifier(self, features: Tensor) -> Tensor:
        """Return logits [..., K] for features [..., F]."""
        return logits_of(self.head, features)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over all views that come with features."""
        assert batch.features_BVF is not None
        labels_BV = batch.labels_B[:, None].expand(batch.features_BVF.shape[:2])
        logits_AK = self.classifier(batch.features_BVF.flatten(0, 1))
        return nn.functional.cross_entropy(logits_AK, labels_BV.flatten())
