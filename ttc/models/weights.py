"""Start an encoder from weights that exist: published ones, or a file in one of the layouts in circulation.

A common prefix of the names is removed, and heads of the source are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ttc.models.adapt import first_convolution, fit_channels
from ttc.models.encoders import EncoderSpec, Normalisation, Weights, family_of
from ttc.models.weight_files import read_weights

_log = logging.getLogger("ttc")

DEFAULT = ("default", "imagenet")
"""Words for the weights that torchvision or timm publish for a model."""

_COUNTER = "num_batches_tracked"
"""BatchNorm's step counter, which older files lack; it has no influence on what a network computes."""


@dataclass(frozen=True)
class Loaded:
    """The outcome of loading weights.

    Attributes:
        matched: tensors of the encoder that the file holds.
        total: tensors of the encoder.
        missing: names of those that were not, with the reason where the shape differs.
        unexpected: names of the file that the encoder does not have, heads apart.
        left_out: how many other tensors the file holds.
        prefix: that was removed from the names.
        normalisation: mean and std per channel that the weights were trained with, or None.
    """

    matched: int
    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    left_out: int
    prefix: str
    normalisation: Normalisation | None

    def line(self, source: str) -> str:
        """Return the line for the log."""
        parts = [f"weights {source}: matched {self.matched} of {self.total} tensors"]
        parts += [f"{len(names)} {what} ({_some(names)})" for what, names in
                  (("missing", self.missing), ("unexpected", self.unexpected)) if names]  # fmt: skip
        if self.left_out:
            parts.append(f"{self.left_out} of heads and other parts left out")
        if self.prefix:
            parts.append(f"prefix {self.prefix} removed")
        return ", ".join(parts)


def load_weights(encoder: nn.Module, spec: EncoderSpec, source: str, *, allow_missing: bool = False) -> Loaded:
    """Start an encoder from given weights and log what fitted.

    Args:
        encoder: what `build_encoder(spec)` returned; changed in place.
        spec: its description.
        source: "default" or "imagenet" (what torchvision or timm publish), or a file: a checkpoint of pretrain.py, a
            state dict, or one inside of another checkpoint. The first convolution is fitted to the channels.
        allow_missing: warn where tensors are missing or too many, instead of refusing.

    Returns:
        What fitted, with the mean and std that the weights were trained with.

    Raises:
        ValueError: the weights cannot be had or do not fit; the message names the first parameters that differ. The
            encoder is then as it was.
    """
    family = family_of(spec.name)
    weights = _published(encoder, spec, source) if source in DEFAULT else read_weights(Path(source))
    expected = encoder.state_dict()
    prefix = _prefix(weights.state, expected)
    state = {name.removeprefix(prefix): value for name, value in weights.state.items() if name.startswith(prefix)}
    first = f"{first_convolution(encoder)[0]}.weight"
    if first in state and state[first].ndim == 4:
        state[first] = fit_channels(state[first], spec.channels)
    state = family.fit(state, encoder)
    fitting = {name: state[name] for name in expected if name in state and state[name].shape == expected[name].shape}
    missing = tuple(_why(name, state, expected) for name in expected if name not in fitting and _COUNTER not in name)
    unexpected = _unexpected(state, expected, encoder.cut)  # type: ignore[arg-type]  # names, of every encoder
    needed = sum(_COUNTER not in name for name in expected)
    matched = needed - len(missing)
    named = weights.normalisation or family.normalisation(encoder)
    normalisation = named and (_channels(named[0], spec.channels), _channels(named[1], spec.channels))
    left_out = len(weights.state) - len(fitting) - len(unexpected)
    loaded = Loaded(matched, needed, missing, unexpected, left_out, prefix, normalisation)
    if missing or unexpected:
        _complain(loaded, source, spec, allow_missing=allow_missing)
    _log.info("%s", loaded.line(source))
    encoder.load_state_dict({**expected, **fitting})
    return loaded


def _published(encoder: nn.Module, spec: EncoderSpec, source: str) -> Weights:
    """Return what torchvision or timm publish; the message names the word that the user chose."""
    try:
        return family_of(spec.name).default_weights(encoder, spec)
    except ValueError as error:
        raise ValueError(f"--weights {source}: {error}") from None


def _complain(loaded: Loaded, source: str, spec: EncoderSpec, *, allow_missing: bool) -> None:
    if not allow_missing or not loaded.matched:
        names = (*loaded.missing, *loaded.unexpected)
        raise ValueError(
            f"--weights {source} does not fit --encoder {spec.name} ({len(names)} entries differ, first: {names[0]}; "
            f"{loaded.line('')[len('weights : ') :]}); choose the encoder that the weights belong to, another --stem, "
            f"or accept the rest with --allow-missing-weights"
        )
    _log.warning("%s", loaded.line(source))


def _why(name: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    return f"{name} {list(state[name].shape)} instead of {list(expected[name].shape)}" if name in state else name


def _unexpected(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], cut: Iterable[str]) -> tuple[str, ...]:
    """Return the names that belong to parts which the encoder has, but not there: the file is of a larger network."""
    parts = {name.partition(".")[0] for name in expected if "." in name}
    heads = tuple(f"{name}." for name in cut)
    return tuple(
        name for name in state
        if name not in expected and "." in name and name.partition(".")[0] in parts and not name.startswith(heads)
    )  # fmt: skip


def _prefix(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return the prefix without which most names fit; the first and shortest of equals (MoCo has two encoders)."""
    fitting: Counter[str] = Counter()
    for name, value in state.items():
        for start in (0, *(end + 1 for end, letter in enumerate(name) if letter == ".")):
            if (rest := name[start:]) in expected:
                # The shape counts more: parts of several networks have one name.
                fitting[name[:start]] += 1 + 1000 * (expected[rest].shape == value.shape)
    return max(fitting, key=lambda prefix: fitting[prefix], default="")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _channels(values: Sequence[float], channels: int) -> list[float]:
    """Return a mean or std for another number of channels: one takes the average of all, more repeat them."""
    if channels == 1:
        return [sum(values) / len(values)]
    return [float(values[channel % len(values)]) for channel in range(channels)]
