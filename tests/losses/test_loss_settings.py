"""Every setting of every method: values of another kind are refused by name."""

from __future__ import annotations

import inspect
import math

import pytest
from loss_cases import DIM, FEATURES

from ttc.losses import METHODS, build_objective, settings_of

CONTEXT = {"minority_class": 1, "class_counts": [9, 1], "feature_dim": FEATURES, "projection_dim": DIM}
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
    import numpy as np

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
