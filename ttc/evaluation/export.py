"""An encoder in forms that other programs load: one module that normalises, TorchScript, ONNX, safetensors.

Every form is read back and compared with the network that it was made from.

Legend: N images, C channels, S side in px, F features.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork

TOLERANCE = 1e-5
"""Largest difference of a feature, relative to the largest feature, between an export and its source."""

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportedEncoder(nn.Module):
    """The frozen encoder of a run with the run's normalisation in front.

    Attributes:
        feature_dim: F.
        image_size: S.
        mean: [C, 1, 1] of pixel values in [0, 1].
        std: the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: PretrainNetwork, description: Description) -> None:
        """Take over a run's encoder.

        Args:
            network: as `load_network` gives it.
            description: of the same run.
        """
        super().__init__()
        self.encoder = network.encoder
        self.feature_dim = network.feature_dim
        self.image_size = description.preprocessing.image_size
        self.register_buffer("mean", torch.tensor(description.preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(description.preprocessing.std).view(-1, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Encode images [N, C, S, S], float32 in [0, 1], into features [N, F]."""
        features: Tensor = self.encoder((images - self.mean) / self.std)
        return features


def check_parity(form: str, exported: Tensor, expected: Tensor) -> float:
    """Return the largest difference between two sets of features.

    Raises:
        ValueError: it is larger than rounding can explain.
    """
    difference = float((exported - expected).abs().max())
    if exported.shape != expected.shape or not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ValueError(f"--format {form}: the export differs from the encoder by {difference:.3g}; do not use it")
    return difference


def save_torchscript(path: Path, encoder: ExportedEncoder, images: Tensor) -> float:
    """Trace the encoder and save it; return the parity of the saved file on `images` [N, C, S, S]."""
    with warnings.catch_warnings():
        # Newer versions announce a successor; the format stays the one that C++ and mobile runtimes read.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        # What depends on the image's side is fixed in a trace, and so is the side; parity is checked below.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # torch
        torch.jit.save(torch.jit.trace(encoder, images[:1]), path)  # type: ignore[no-untyped-call]
        loaded = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return check_parity("torchscript", loaded(images), encoder(images))


def save_onnx(path: Path, encoder: ExportedEncoder, images: Tensor) -> float:
    """Save the encoder for any number of images; return the parity of onnxruntime's result on `images`.

    Raises:
        ValueError: a package that does not come with torch is missing.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--format onnx needs {' '.join(missing)}; pip install them, or use torchscript")
    import onnxruntime

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        encoder,
        (images,),
        path,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"images": images.numpy()})
    return check_parity("onnx", torch.from_numpy(features), encoder(images))


def save_safetensors(path: Path, encoder: ExportedEncoder, description: Description, images: Tensor) -> float:
    """Save the state dict in the format of safetensors, with what is needed to build the encoder as metadata.

    Returns:
        The parity of an encoder with the weights that were read back.
    """
    side = encoder.image_size
    metadata = {
        "encoder": json.dumps(description.encoder),
        "class_names": json.dumps(description.class_names),
        "preprocessing": json.dumps(description.preprocessing.as_dict()),
        "input": f"float32 [N, {description.encoder['channels']}, {side}, {side}] in [0, 1]",
    }
    write_safetensors(path, encoder.state_dict(), metadata)
    again = ExportedEncoder(description.network(), description)
    again.load_state_dict(read_safetensors(path))
    return check_parity("safetensors", again(images), encoder(images))


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors in the safetensors format: the header's length, a JSON header, then the raw values.

    Source: github.com/huggingface/safetensors, section "Format".
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    chunks, end = [], 0
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        start, end = end, end + len(data)
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        chunks.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # values start at a multiple of eight bytes
    path.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *chunks]))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_safetensors` wrote."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    dtypes = {name: dtype for dtype, name in _DTYPES.items()}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            raw = bytearray(values[start:end])
            dtype, shape = dtypes[entry["dtype"]], entry["shape"]
            empty = torch.empty(shape, dtype=dtype)
            tensors[name] = torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else empty
    return tensors
