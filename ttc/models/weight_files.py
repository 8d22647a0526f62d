"""Read tensors from files of weights in the layouts in circulation; nothing in a file is ever executed."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ttc.models.encoders import Normalisation, Weights
from ttc.run import files

_HOLDERS = (
    "state_dict", "model_state_dict", "model", "model_state", "teacher", "student", "encoder", "backbone",
)  # fmt: skip
"""Keys under which files keep the tensors, by precedence: DINO's file holds teacher and student."""

_RENAMED = ((".shortcut.", ".downsample."),)
"""Names that differ in well-known code bases: SupContrast's ResNet against torchvision's."""

_HARMLESS = (
    "argparse.Namespace", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath",
    "pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.dtype", "numpy.dtypes.Float32DType", "numpy.dtypes.Float64DType", "numpy.dtypes.Int64DType",
)  # fmt: skip
"""Settings and numbers that training scripts save beside the tensors; an empty shell takes the place of each."""


class _Shell:
    """Stands for a settings object of a file; it keeps nothing and can do nothing."""

    def __init__(self, *values: object) -> None:
        """Take what the file says and forget it."""

    def __setstate__(self, state: object) -> None:
        """Take what the file says and forget it."""

    def __setitem__(self, key: object, value: object) -> None:
        """Take what the file says and forget it."""

    def update(self, values: object) -> None:
        """Take what the file says and forget it."""


def read_weights(path: Path) -> Weights:
    """Read the tensors of a file, and the normalisation if it names one.

    Args:
        path: .safetensors, or what torch.save wrote (.pt, .pth, .ckpt, .bin).

    Raises:
        ValueError: the file cannot be read, or holds no tensors.
    """
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    normalisation = _named_normalisation(content)
    for _ in range(3):
        holder = next((key for key in _HOLDERS if _holds_tensors(content.get(key))), None)
        if holder is None:
            break
        content = content[holder]  # type: ignore[assignment]  # a mapping, see _holds_tensors
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"--weights {path} holds no state dict; pass a dict of tensors")
    for theirs, ours in _RENAMED:
        state = {name.replace(theirs, ours): value for name, value in state.items()}
    return Weights(state, normalisation)


def _holds_tensors(value: object, depth: int = 0) -> bool:
    if not isinstance(value, Mapping) or depth > 2:
        return False
    return any(isinstance(entry, Tensor) or _holds_tensors(entry, depth + 1) for entry in value.values())


def _named_normalisation(content: Mapping[str, object]) -> Normalisation | None:
    """Return mean and std of a checkpoint of this project, or of an encoder that it exported."""
    source = content
    for part in ("description", "preprocessing"):
        inner = source.get(part)
        source = inner if isinstance(inner, Mapping) else source
    statistics = []
    for name in ("mean", "std"):
        value = source.get(name)
        if isinstance(value, Tensor):
            value = value.flatten().tolist()
        numbers = isinstance(value, list | tuple) and value and all(isinstance(number, float) for number in value)
        statistics.append(list(value) if numbers and isinstance(value, list | tuple) else None)
    mean, std = statistics
    return None if mean is None or std is None or len(mean) != len(std) else (mean, std)


def _safetensors(path: Path) -> Mapping[str, object]:
    if importlib.util.find_spec("safetensors") is None:
        raise ValueError(f"--weights {path} needs safetensors; pip install safetensors, or pass a .pt file")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(files.read_bytes(path, files.run_of(path))))
    except OSError as error:
        raise ValueError(f"--weights {path} cannot be read ({error.strerror}); pass an existing file") from None
    except SafetensorError as error:
        raise ValueError(f"--weights {path} is no safetensors file ({error}); download it again") from None


def _torch_file(path: Path) -> Mapping[str, object]:
    shells = [(_Shell, name) for name in _HARMLESS]
    try:
        data = files.read_bytes(path, files.run_of(path))
    except OSError as error:
        raise ValueError(f"--weights {path} cannot be read ({error.strerror}); pass a .pt file") from None
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(shells):  # type: ignore[arg-type]  # torch's stub lacks pairs
            warnings.simplefilter("ignore")  # about foreign pickle protocols; they are refused anyway
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on arbitrary bytes the unpickler raises almost anything
        raise ValueError(
            f"--weights {path} is no file of plain tensors ({type(error).__name__}); "
            f"pass a state dict saved by torch, or safetensors"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"--weights {path} holds no state dict; pass a dict of tensors")
    return content
