"""Find what would make the host wait for a GPU, on a machine without one: run it on the device that holds no values.

Reading a value of a tensor on the meta device is an error. Copies to it that would wait, tensors made there from Python
numbers, which CUDA copies in the same way, and indices that are elsewhere are noted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


class _Copies(TorchDispatchMode):
    def __init__(self, noted: list[str]) -> None:
        super().__init__()
        self.noted = noted

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            waits = not ((kwargs or {}).get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if waits and isinstance(source, Tensor) and source.device.type == "cpu" and result.device == META:
                self.noted.append(f"{name} of {list(source.shape)}")
        if name in ("index", "index_put_", "_index_put_impl_", "_unsafe_index") and args[0].device == META:
            far = [each for each in args[1] if isinstance(each, Tensor) and each.device.type == "cpu" and each.dim()]
            self.noted += [f"{name} by indices {list(each.shape)} on the CPU" for each in far]
        return result


class _Numbers(TorchFunctionMode):
    def __init__(self, noted: list[str]) -> None:
        super().__init__()
        self.noted = noted

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        data = args[1:] if func is torch.Tensor.new_tensor else args
        if func in _FROM_NUMBERS and data and not isinstance(data[0], Tensor) and result.device == META:
            self.noted.append(f"{func.__name__}({data[0]})")
        return result


@contextlib.contextmanager
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if anything in the context would wait for the device."""
    noted: list[str] = []
    with monkeypatch.context() as patch:
        # There is no autocast for the meta device, and none is wanted.
        patch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
        with _Copies(noted), _Numbers(noted):
            yield
    assert noted == []


def waits(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether an action would wait for the device."""
    try:
        with without_waiting(monkeypatch):
            action()
    except (AssertionError, RuntimeError, NotImplementedError):
        return True
    return False
