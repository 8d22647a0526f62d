"""Every setting of every method: what is accepted, and what is refused with a message that names it."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from loss_cases import DIM, FEATURES

from ttc.losses import METHODS, build_objective, settings_of
from ttc.losses.contrastive import Contrastive

CONTEXT = {
    "minority_class": 1, "class_counts": [9, 1], "schedule_steps": 8, "feature_dim": FEATURES, "projection_dim": DIM
}  # fmt: skip
SETTINGS = [(method, name) for method in METHODS for name in settings_of(method)]
SHARED = [
    ("supmin", name)
    for name, parameter in inspect.signature(build_objective).parameters.items()
    if name != "name" and parameter.kind is parameter.KEYWORD_ONLY
]


def built(method: str, **settings: object) -> object:
    return build_objective(method, **{**CONTEXT, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "none", [math.nan, 1.0], {}], ids=str)
@pytest.mark.parametrize(("method", "name"), SETTINGS + SHARED)
def test_a_value_of_another_kind_is_refused_by_name(method: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} "):
        built(method, **{name: value})


@pytest.mark.parametrize("method", METHODS)
def test_defaults_and_numbers_of_numpy_are_accepted(method: str) -> None:
    defaults = settings_of(method)
    numbers = {k: np.asarray(v)[()] for k, v in defaults.items() if isinstance(v, int | float)}
    built(method, **defaults)
    built(method, **{**defaults, **numbers})


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("kcl", {"k": 2.5}, "k 2.5 is not a whole number; the default is 3"),
        ("paco", {"queue_size": True}, "queue_size True is not a whole number"),
        ("focal", {"class_weights": 1}, "class_weights 1 is not true or false"),
        ("tsc", {"matching": 1}, "matching 1 is not a word"),
        ("supcon", {"temperature": [0.1]}, r"temperature \[0.1\] is not a single value"),
        ("weighted-ce", {"class_counts": [9.5, 1]}, r"class_counts \[9.5, 1\] is not a whole number"),
        ("tsc", {"kcl_epochs": -1}, "kcl_epochs -1"),
        ("bcl", {"feature_dim": 0}, "feature_dim 0"),
        ("supcon", {"projection_dim": -1}, "projection_dim -1"),
    ],
)
def test_kinds_and_ranges(method: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(method, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("supmax", {}, "'supmax' does not exist; choose one of simclr"),
        ("supmin", {}, "give minority_class"),
        ("supmin", {"minority_class": 2}, r"\[2\] is not within 0..1"),
        ("supmin", {"minority_class": 1, "ratio_supervised_majority": 1.5}, "1.5 is not a share"),
        ("supcon", {"margin": 1.0}, "no setting margin; it knows: temperature, base_temperature"),
        ("ce", {"temperature": 0.1}, "no setting temperature; it knows: none"),
        ("simclr", {"temperature": 0.0}, "temperature 0.0 is not a positive number"),
        ("supproto", {"margin": [1.0, 2.0, 3.0]}, "3 values for 2 classes"),
        ("supproto", {"num_classes": 9, "projection_dim": 8}, "projection_dim 8 is less than the 9 classes"),
        ("kcl", {"k": 0}, "k 0"),
        ("tsc", {"matching": "best"}, "'best' does not exist"),
        ("weighted-ce", {}, "give class_counts"),
        ("weighted-ce", {"class_counts": [3, 0]}, r"\[3, 0\]"),
        ("bcl", {"class_counts": [3, 1]}, "give feature_dim"),
        ("bcl", {"centres": "mean"}, "'mean' does not exist"),
        ("paco", {"class_counts": [3, 1], "alpha": 0.0, "beta": 0.0}, "leave no target"),
        ("paco", {"class_counts": [3, 1], "momentum": 2.0}, "momentum 2.0"),
        ("sbc", {"tau2": "both"}, "'both' does not exist"),
        ("proco", {"class_counts": [3, 1], "alpha": -1.0}, "alpha -1.0 is negative"),
        ("proco", {"class_counts": [3, 1], "temperature": 0.0}, "temperature 0.0 is not a positive number"),
        ("proco", {"class_counts": [3, 1], "projection_dim": 1}, "projection_dim 1 leaves no directions"),
        ("sbc", {"rule": 3}, "rule 3 does not exist; choose 1 or 2"),
        ("focal", {"gamma": -1.0, "class_counts": [3, 1]}, "gamma -1.0"),
        ("ldam-drw", {"class_counts": [3, 1]}, "give feature_dim"),
        ("ldam-drw", {"class_counts": [3, 1], "feature_dim": 4}, "after 0.8 of the schedule; give schedule_steps"),
        ("ldam-drw", {"class_counts": [3, 1], "drw_start": 1.2}, "drw_start 1.2 a share"),
        ("ldam-drw", {"class_counts": [3, 1], "effective_beta": 1.0}, "effective_beta 1.0"),
        ("ldam-drw", {"class_counts": [3, 1], "max_margin": -0.1}, "max_margin -0.1"),
        ("simclr", {"num_classes": 1}, "num_classes 1"),
        ("supcon", {"instance_weight": 1.2}, "instance_weight 1.2 is not a share"),
        ("supcon", {"ce_weight": -1.0}, "ce_weight -1.0 is negative"),
        ("supcon", {"ce_weight": 1.0}, "give feature_dim"),
        ("ce", {"instance_weight": 0.5}, "contrastive methods only"),
    ],
)
def test_refused_settings(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_objective(name, **settings)


@pytest.mark.parametrize("name", METHODS)
def test_registry_tells_source_and_settings(name: str) -> None:
    assert METHODS[name].source
    assert "num_classes" not in settings_of(name)
    if issubclass(METHODS[name].objective, Contrastive):
        assert "temperature" in settings_of(name)
