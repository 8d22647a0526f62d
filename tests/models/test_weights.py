"""Weights to start from: what fits and what does not, what they were trained with, files that are none."""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.models.random_weights import (
    CONVNET,
    RESNET,
    SMALL_RESNET,
    VIT,
    needs_safetensors,
    needs_timm,
    random_like,
    torchvision,
    under,
    zeros,
)
from ttc.evaluation.export import write_safetensors
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.weights import Loaded, load_weights


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ttc")


def load(state: object, spec: EncoderSpec, path: Path, **options: bool) -> Loaded:
    torch.save(state, path)
    return load_weights(build_encoder(spec), spec, str(path), **options)


def test_half_of_the_tensors_are_refused_with_names_unless_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, path = random_like(RESNET), tmp_path / "half.pt"
    half = dict(list(state.items())[: len(state) // 2])
    gone = next(name for name in state if name not in half)
    with pytest.raises(
        ValueError, match=rf"does not fit --encoder resnet18 .*first: {gone}.*matched \d+ of 100"
    ) as caught:
        load(half, RESNET, path)
    assert "\n" not in str(caught.value)
    loaded = load(half, RESNET, path, allow_missing=True)
    assert gone in loaded.missing
    assert loaded.matched + len(loaded.missing) == loaded.total == 100
    assert any(record.levelname == "WARNING" and gone in record.getMessage() for record in caplog.records)
    with pytest.raises(ValueError, match="does not fit"):  # nothing at all is no start, whatever is allowed
        load(zeros("other.weight"), RESNET, path, allow_missing=True)


def test_a_larger_network_is_not_cut_down(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not fit --encoder resnet18 .*first: layer1\.2\.conv1\.weight"):
        load(random_like(EncoderSpec("resnet34", 3, 32, "imagenet")), RESNET, tmp_path / "x.pt")


@pytest.mark.parametrize("spec", [EncoderSpec("resnet34", 3, 224), SMALL_RESNET, EncoderSpec("convnet-w4", 3, 32)])
def test_weights_that_do_not_fit_change_nothing(spec: EncoderSpec, tmp_path: Path) -> None:
    path, encoder = tmp_path / "resnet18.pth", build_encoder(spec)
    torch.save(torchvision(random_like(RESNET)), path)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    message = rf"--weights .*resnet18\.pth does not fit --encoder {spec.name} .*first: "
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(encoder, spec, str(path))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_counters_that_old_files_lack_are_not_missed(tmp_path: Path) -> None:
    state = {name: value for name, value in random_like(RESNET).items() if "num_batches" not in name}
    assert load(state, RESNET, tmp_path / "old.pt").missing == ()


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_weights_cross_colours(before: int, after: int, tmp_path: Path) -> None:
    """A grey image gives what its three equal channels give, either way."""
    first, second = EncoderSpec("resnet18", before, 96), EncoderSpec("resnet18", after, 96)
    encoders = [build_encoder(first).eval(), build_encoder(second).eval()]
    torch.save(encoders[0].state_dict(), tmp_path / "x.pt")
    load_weights(encoders[1], second, str(tmp_path / "x.pt"))
    images = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        outs = [
            encoder(images.expand(-1, channels, -1, -1))
            for encoder, channels in zip(encoders, (before, after), strict=True)
        ]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-5)


def test_positions_of_a_vit_are_resampled() -> None:
    from torchvision.models.vision_transformer import VisionTransformer

    from ttc.models.encoders.torchvision_models import fit

    small, large = (VisionTransformer(size, 8, 1, 2, 16, 16) for size in (32, 64))
    state = dict(small.state_dict())
    # A linear ramp of positions stays one, apart from the border.
    state["encoder.pos_embedding"] = torch.cat([torch.zeros(1), torch.arange(16.0)])[None, :, None].expand(1, 17, 16)
    found = fit(state, large)["encoder.pos_embedding"]
    assert found.shape == (1, 65, 16)
    grid = found[0, 1:, 0].view(8, 8)
    assert (grid.diff(dim=0) > 0).all()
    assert (grid.diff(dim=1) > 0).all()
    assert fit(state, small) is state


# What the weights were trained with.


def test_a_checkpoint_names_its_normalisation(tmp_path: Path) -> None:
    state = {"encoder": random_like(RESNET), "description": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    assert load(state, RESNET, tmp_path / "x.pt").normalisation == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    grey = load(state, EncoderSpec("resnet18", 1, 32, "imagenet"), tmp_path / "x.pt").normalisation
    assert grey is not None
    assert grey[0] == pytest.approx([0.2])
    assert grey[1] == pytest.approx([0.5])
    assert load(random_like(RESNET), RESNET, tmp_path / "x.pt").normalisation is None


@needs_timm
def test_timm_names_the_normalisation_of_any_file(tmp_path: Path) -> None:
    import timm

    settings = timm.create_model("test_vit").pretrained_cfg
    found = load(random_like(VIT), VIT, tmp_path / "x.pt").normalisation
    assert found == (list(settings["mean"]), list(settings["std"]))


@needs_safetensors
def test_safetensors_of_this_project_and_of_others(tmp_path: Path) -> None:
    state, path = random_like(RESNET), tmp_path / "model.safetensors"
    write_safetensors(path, state, {"format": "pt"})
    encoder = build_encoder(RESNET)
    assert load_weights(encoder, RESNET, str(path)).normalisation is None
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    mean, std = torch.tensor([0.5, 0.25, 0.125]).view(-1, 1, 1), torch.tensor([1.0, 0.5, 0.25]).view(-1, 1, 1)
    write_safetensors(path, {**under("encoder.", state), "mean": mean, "std": std}, {})
    loaded = load_weights(build_encoder(RESNET), RESNET, str(path))
    assert loaded.prefix == "encoder."
    assert loaded.normalisation == ([0.5, 0.25, 0.125], [1.0, 0.5, 0.25])


def test_without_safetensors_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "safetensors" else find(name))
    with pytest.raises(ValueError, match=r"x\.safetensors needs safetensors; pip install safetensors"):
        load_weights(build_encoder(RESNET), RESNET, str(tmp_path / "x.safetensors"))


# Files that are none, and weights that cannot be had.


@pytest.mark.parametrize("data", [b"", b"\x80", b"no weights", bytes(3000)])
@pytest.mark.parametrize("name", ["x.pt", pytest.param("x.safetensors", marks=needs_safetensors)])
def test_files_without_tensors_are_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(
        ValueError, match=r"--weights .*x\.\w+ is no (file of plain tensors|safetensors file)"
    ) as caught:
        load_weights(build_encoder(CONVNET), CONVNET, str(tmp_path / name))
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("/tmp/ttc-was-executed"),)  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_is_executed(protocol: int, tmp_path: Path) -> None:
    path, trace = tmp_path / "x.ckpt", Path("/tmp/ttc-was-executed")
    torch.save({"state_dict": random_like(CONVNET), "args": Evil()}, path, pickle_protocol=protocol)
    with pytest.raises(ValueError, match="is no file of plain tensors"):
        load_weights(build_encoder(CONVNET), CONVNET, str(path))
    path.write_bytes(pickle.dumps(Evil(), protocol))
    with pytest.raises(ValueError, match="is no file of plain tensors"):
        load_weights(build_encoder(CONVNET), CONVNET, str(path))
    assert not trace.exists()


def test_other_contents_are_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {"a": 1}, {"state_dict": {}}):
        with pytest.raises(ValueError, match="holds no state dict"):
            load(content, CONVNET, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        load_weights(build_encoder(CONVNET), CONVNET, str(tmp_path / "none.pt"))
    with pytest.raises(ValueError, match="there are none for --encoder convnet-w4"):
        load_weights(build_encoder(CONVNET), CONVNET, "default")


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens on the discard port


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("word", ["default", "imagenet"])
def test_without_network_the_message_names_address_and_cache(word: str, tmp_path: Path) -> None:
    message = rf"https://.*resnet18.*could not be fetched .*put it into {tmp_path}.*pass the file with --weights"
    with pytest.raises(ValueError, match=message):
        load_weights(build_encoder(RESNET), RESNET, word)


@pytest.mark.usefixtures("_offline")
def test_default_weights_come_from_the_cache_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    # The file's name ends in the start of its digest, which is checked on a download only.
    name = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    state = random_like(RESNET)
    torch.save(torchvision(state), tmp_path / "hub" / "checkpoints" / name)
    encoder = build_encoder(RESNET)
    loaded = load_weights(encoder, RESNET, "default")
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    assert loaded.normalisation == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
