"""timm/NAME: every model of timm (pip install timm), by its name there; timm/hf-hub:ORG/NAME from the Hub."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ttc.models.adapt import halve_stem
from ttc.models.encoders import SMALL_IMAGE, EncoderSpec, Normalisation, Weights, WrongSize

_PREFIX = "timm/"


def names() -> list[str]:
    """Return the pattern of the names."""
    return ["timm/NAME", "timm/hf-hub:ORG/NAME"]


def has(name: str) -> bool:
    """Tell whether a name is one of timm's."""
    return name.startswith(_PREFIX)


def _timm(name: str) -> ModuleType:
    if importlib.util.find_spec("timm") is None:
        raise ValueError(f"--encoder {name} needs timm; pip install timm, or choose a model of torchvision")
    return importlib.import_module("timm")


def build(spec: EncoderSpec, drop_path: float) -> nn.Module:
    """Build the model without its last layer."""
    parameters = _parameters(spec.name)
    options: dict[str, object] = {"in_chans": spec.channels}
    if "dynamic_img_size" in parameters:
        options["dynamic_img_size"] = True
    elif "img_size" in parameters:
        options["img_size"] = spec.image_size
    if drop_path and "drop_path_rate" not in parameters:
        raise ValueError(f"--drop-path {drop_path:g}: --encoder {spec.name} has no branches to leave out; leave it out")
    if drop_path:
        options["drop_path_rate"] = drop_path
    encoder = _create(spec.name, **options)
    classifier = encoder.pretrained_cfg.get("classifier") or ()
    encoder.cut = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    small = spec.stem == "small" or (spec.stem == "auto" and spec.image_size <= SMALL_IMAGE)
    fixed = encoder.pretrained_cfg.get("fixed_input_size") or hasattr(encoder, "patch_embed")
    if small and (fixed or not halve_stem(encoder)) and spec.stem == "small":
        raise ValueError(f"--stem small: --encoder {spec.name} has no smaller first stride; leave it out")
    network: nn.Module = encoder
    return network


@functools.cache
def _parameters(name: str) -> frozenset[str]:
    """Return what the model's class can be told."""
    try:
        with torch.device("meta"):
            model = _create(name)
    except NotImplementedError:  # it computes something while it is built
        model = _create(name)
    return frozenset(inspect.signature(type(model).__init__).parameters)


def _create(name: str, **options: object) -> Any:
    timm, model = _timm(name), name.removeprefix(_PREFIX)
    if not model.startswith("hf-hub:") and not timm.is_model(model):
        near = timm.list_models(f"*{model.split('.')[0].split('_')[0]}*")[:8]
        hint = f"it has {', '.join(near)} ..." if near else "timm.list_models() names them"
        raise ValueError(f"--encoder {name}: timm {timm.__version__} has no such model; {hint}")
    try:
        created = timm.create_model(model, pretrained=False, num_classes=0, **options)
    except NotImplementedError:
        raise
    except (RuntimeError, AssertionError, ArithmeticError) as error:
        raise WrongSize(str(error)) from error
    except Exception as error:  # the Hub's client raises errors of several packages without a network
        if not model.startswith("hf-hub:"):
            raise
        raise ValueError(
            f"--encoder {name}: its configuration could not be fetched ({type(error).__name__}); run once with a "
            f"network to fill the cache (HF_HOME), or name the architecture and pass --weights FILE"
        ) from None
    return created


def fit(state: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """Translate original layouts (DINOv2, ConvNeXt, Swin ...) and resample position embeddings, as timm does."""
    translate = getattr(sys.modules[type(encoder).__module__], "checkpoint_filter_fn", None)
    return state if translate is None else dict(translate(dict(state), encoder))


def default_weights(encoder: nn.Module, spec: EncoderSpec) -> Weights:
    """Return timm's pretrained weights, from the Hub's cache if they are there."""
    from timm.models import load_pretrained

    settings = _settings(encoder)
    if not any(settings.get(key) for key in ("hf_hub_id", "url", "file", "state_dict")):
        raise ValueError(f"timm has none for --encoder {spec.name}; pass a file or another encoder")
    try:
        load_pretrained(encoder, num_classes=0, in_chans=spec.channels)
    except RuntimeError as error:
        raise ValueError(
            f"those of {settings.get('hf_hub_id')} do not fit --encoder {spec.name} "
            f"({' '.join(str(error).split())[:200]}); pass the file with --weights FILE --allow-missing-weights"
        ) from None
    except Exception as error:  # the Hub's client raises errors of several packages without a network
        raise ValueError(
            f"{settings.get('hf_hub_id') or settings.get('url')} could not be fetched "
            f"({type(error).__name__}); run once with a network to fill the cache (HF_HOME), or download the file "
            f"elsewhere and pass the file with --weights FILE"
        ) from None
    return Weights(encoder.state_dict(), normalisation(encoder))


def normalisation(encoder: nn.Module) -> Normalisation | None:
    """Return the mean and std that timm's configuration of a model names."""
    settings = _settings(encoder)
    return list(settings["mean"]), list(settings["std"])


def _settings(encoder: Any) -> dict[str, Any]:
    return dict(encoder.pretrained_cfg)
