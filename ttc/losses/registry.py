"""The methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ttc.losses.balanced import BCL
from ttc.losses.combine import add_terms
from ttc.losses.cross_entropy import CrossEntropy, FocalLoss, LogitAdjustedCrossEntropy, WeightedCrossEntropy
from ttc.losses.objective import Objective
from ttc.losses.parametric import PaCo
from ttc.losses.prototypes import SupProto
from ttc.losses.subclass import SBC
from ttc.losses.supervised import SimCLR, SupCon, SupMin
from ttc.losses.targeted import KCL, TSC

# What `build_objective` offers to every method; a method takes those that its constructor names.
_CONTEXT = ("num_classes", "minority_class", "class_counts", "feature_dim", "projection_dim", "seed")


@dataclass(frozen=True)
class Method:
    """A registered method: its class and one line for the help text."""

    objective: type[Objective]
    description: str

    @property
    def source(self) -> str:
        """Paper and equation, from the class's docstring."""
        text = inspect.getdoc(self.objective) or ""
        _, found, source = text.partition("Source:")
        assert found, f"{self.objective.__name__} names no source"
        return " ".join(source.partition("Note:")[0].split())


_REGISTRY: dict[str, Method] = {
    "simclr": Method(SimCLR, "no labels: the two views of an image attract each other"),
    "supcon": Method(SupCon, "all images of a class attract each other; collapses under binary imbalance"),
    "supmin": Method(SupMin, "minority images attract each other, majority images only their other view"),
    "supproto": Method(SupProto, "SimCLR with a fixed prototype per class that pulls badly placed images"),
    "kcl": Method(KCL, "SupCon with at most k positives per image beside its other view"),
    "tsc": Method(TSC, "KCL whose classes are also drawn to fixed, evenly spread targets"),
    "bcl": Method(BCL, "SupCon with class means in the denominator and class centres, plus adjusted cross-entropy"),
    "paco": Method(PaCo, "momentum queue and class logits in one softmax"),
    "sbc": Method(SBC, "SupCon inside sub-classes of equal size, and a weaker one between them"),
    "ce": Method(CrossEntropy, "plain cross-entropy"),
    "weighted-ce": Method(WeightedCrossEntropy, "cross-entropy weighted by inverse class frequency"),
    "focal": Method(FocalLoss, "weighted cross-entropy that fades out for easy images"),
    "logit-adjusted-ce": Method(LogitAdjustedCrossEntropy, "cross-entropy of logits shifted by the log prior"),
}

METHODS: tuple[str, ...] = tuple(_REGISTRY)


def method(name: str) -> Method:
    """Return a registered method.

    Raises:
        ValueError: for a name that is not registered.
    """
    if name not in _REGISTRY:
        raise ValueError(f"method {name!r} does not exist; choose one of {', '.join(METHODS)}")
    return _REGISTRY[name]


def settings_of(name: str) -> dict[str, object]:
    """Return the settings that a method knows, with their defaults."""
    parameters = inspect.signature(method(name).objective).parameters
    return {key: p.default for key, p in parameters.items() if key not in _CONTEXT}


def _check_settings(name: str, settings: Mapping[str, object]) -> None:
    known = settings_of(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"method {name} has no setting {', '.join(unknown)}; it knows: {', '.join(known) or 'none'}")


def build_objective(
    name: str,
    *,
    num_classes: int = 2,
    minority_class: int | Iterable[int] | None = None,
    class_counts: Sequence[int] | None = None,
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
        class_counts: training samples per class.
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
        ValueError: for an unknown method or setting, or a value out of range.
    """
    entry = method(name)
    for key, value in (("temperature", temperature), ("base_temperature", base_temperature)):
        if value is not None:
            settings[key] = value
    _check_settings(name, settings)
    values = (num_classes, minority_class, class_counts, feature_dim, projection_dim, seed)
    context = dict(zip(_CONTEXT, values, strict=True))
    accepted = inspect.signature(entry.objective).parameters
    constructor: Callable[..., Objective] = entry.objective
    objective = constructor(**{k: v for k, v in context.items() if k in accepted}, **settings)
    add_terms(
        objective,
        temperature=getattr(objective, "temperature", 0.07),
        feature_dim=feature_dim,
        projection_dim=projection_dim,
        seed=seed,
        ce_weight=ce_weight,
        instance_weight=instance_weight,
        prototype_weight=prototype_weight,
    )
    return objective
