"""Image encoders and heads: parameter counts of the protocol, equality with torchvision, width, stride and edge."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from paretorch.training.model_size import parameter_counts
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import ENCODERS, MEAN, SPREAD, encoder
from paretorch.workloads.models.image_heads import PixelHead, image_classifier
from paretorch.workloads.models.two_heads import classification_and_segmentation


def test_two_heads_model_has_the_number_of_parameters_of_the_protocol() -> None:
    counts = parameter_counts(classification_and_segmentation(100, 21, 256))
    assert counts["encoder"] == 2_971_952
    assert counts["total"] == 6_116_329
    assert parameter_counts(classification_and_segmentation(100, 21, 256, decoder="wide"))["total"] == 9_509_353


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_equals_torchvision_without_classifier(name: str, tmp_path: Path) -> None:
    """The same weights give the same features: layers, order and strides are those of the published model."""
    torch.manual_seed(0)
    whole = getattr(torchvision.models, name)(weights=None).eval()
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    ours = encoder(name).eval()
    load_encoder_weights(ours, tmp_path / "whole.safetensors")
    inputs_of_pooling: list[torch.Tensor] = []
    pooled = whole.avgpool
    pooled.register_forward_pre_hook(lambda _, inputs: inputs_of_pooling.append(inputs[0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole(x)
        torch.testing.assert_close(ours(x), inputs_of_pooling[0])
    assert ours.channels == inputs_of_pooling[0].shape[1]
    classifier = sum(p.numel() for p in (whole.fc if name.startswith("resnet") else whole.classifier).parameters())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in whole.parameters()) - classifier


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("width", [0.25, 0.35])
@pytest.mark.parametrize("stride", [32, 8, 2])
@pytest.mark.sampled(4)
def test_encoder_accepts_any_width_and_stride(name: str, width: float, stride: int) -> None:
    made = encoder(name, width, stride)
    features = made(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, made.channels, 64 // stride, 64 // stride)
    assert made.channels % 8 == 0
    full, half = encoder(name), encoder(name, 0.5)
    assert 3 < parameter_count(full) / parameter_count(half) < 5


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_encoder_with_a_smaller_stride_has_the_same_weights() -> None:
    assert {name: value.shape for name, value in encoder(stride=8).state_dict().items()} == {
        name: value.shape for name, value in encoder().state_dict().items()
    }


@pytest.mark.parametrize("edge", [64, 50, 33])
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("decoder", ["narrow", "wide"])
def test_pixel_head_output_has_the_resolution_of_the_image(edge: int, stride: int, decoder: str) -> None:
    model = classification_and_segmentation(4, 6, edge, width=0.25, stride=stride, decoder=decoder)
    outputs = model(torch.randn(2, 3, edge, edge))
    assert outputs["classification"].shape == (2, 4)
    assert outputs["segmentation"].shape == (2, 6, edge, edge)


def test_pixel_head_scores_commute_with_interpolation() -> None:
    head = PixelHead(8, 3, stride=32).eval()
    features = torch.randn(2, 8, 2, 2)
    blocks = head.blocks(features)
    published = head.scores(nn.functional.interpolate(blocks, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(head(features), published)


def test_encoder_normalises_bytes_and_not_floats() -> None:
    made = encoder("resnet18", 0.25).eval()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, SPREAD))
    torch.testing.assert_close(made(images), made((images / 255 - mean) / spread))


def test_encoder_on_a_single_point_is_an_error_in_training() -> None:
    made = encoder(width=0.35)
    with pytest.raises(ValueError, match=r"batch norm cannot be trained on 1 image of 32 x 32 pixels.*batch size of 2"):
        made(torch.zeros(1, 3, 32, 32))
    made(torch.zeros(2, 3, 32, 32))
    made(torch.zeros(1, 3, 64, 64))
    made.eval()(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encoder("resnet34"), "encoder is one of mobilenet_v3_large, .*got 'resnet34'"),
        (lambda: encoder(width=0.0), "width is a factor above 0"),
        (lambda: encoder(stride=24), "stride is one of"),
        (lambda: PixelHead(8, 3, decoder="deep"), "decoder is one of narrow, wide, got 'deep'"),
        (lambda: PixelHead(8, 3, stride=12), "stride is a power of two, got 12"),
    ],
)
def test_model_errors_name_unknown_values(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def _saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    state = {name: value.clone() for name, value in state.items()}
    save_file(state, path)
    return path


@pytest.mark.parametrize("prefix", ["", "features.", "encoder.features.", "module."])
def test_encoder_weights_are_loaded_with_every_prefix(prefix: str, tmp_path: Path) -> None:
    trained = encoder("resnet18", 0.25)
    state = {prefix + name: value for name, value in trained.features.state_dict().items()}
    path = _saved({**state, "fc.weight": torch.zeros(3, 3)}, tmp_path / "a.safetensors")
    fresh = encoder("resnet18", 0.25)
    load_encoder_weights(fresh, path)
    for name, value in fresh.features.state_dict().items():
        assert torch.equal(value, trained.features.state_dict()[name])


@pytest.mark.parametrize("change", [lambda t: t.to(torch.int8), lambda t: t * math.nan, lambda t: t.double() + 1e300])
def test_encoder_weights_errors_name_numbers_that_cannot_be_weights(change: Any, tmp_path: Path) -> None:
    state = encoder("resnet18", 0.25).features.state_dict()
    broken = next(name for name, value in state.items() if value.is_floating_point())
    path = _saved({**state, broken: change(state[broken])}, tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=rf"a\.safetensors: .*{re.escape(broken)}.*expected finite ones of torch.float32"
    ):
        load_encoder_weights(encoder("resnet18", 0.25), path)


def test_encoder_weights_errors_name_both_shapes(tmp_path: Path) -> None:
    path = _saved(encoder("resnet18", 0.5).state_dict(), tmp_path / "half.safetensors")
    model = encoder("resnet18", 0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"half\.safetensors: 'features.conv1.weight' has the shape \(32, 3, 7, 7\), .*\(16, 3, 7, 7\)"
    ):
        load_encoder_weights(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_encoder_weights_of_another_architecture_are_an_error(tmp_path: Path) -> None:
    path = _saved(encoder("resnet18", 0.25).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"expected a tensor .* for mobilenet_v3_large"):
        load_encoder_weights(encoder(), path)


def test_encoder_weights_errors_name_invalid_files(tmp_path: Path) -> None:
    made = encoder("resnet18", 0.25)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_encoder_weights(made, tmp_path / "nothing.safetensors")
    torch.save(made.state_dict(), tmp_path / "pickled.pth")
    (tmp_path / "text.safetensors").write_text("not tensors")
    save_file({}, tmp_path / "empty.safetensors")
    for name, reason in (
        ("pickled.pth", "expected a .safetensors file"), ("text.safetensors", "not a .safetensors file"),
        ("empty.safetensors", "expected tensors, got none"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}.*{reason}"):
            load_encoder_weights(made, tmp_path / name)


def test_encoder_weights_download_errors_name_the_alternative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ConnectionError, match=r"cannot download https://.*no route.*--encoder-weights FILE"):
        load_encoder_weights(encoder(), "torchvision")


def test_image_classifier_has_the_layers_of_the_protocol() -> None:
    kinds = [type(layer).__name__ for layer in image_classifier(960, 100)]
    assert kinds == ["AdaptiveAvgPool2d", "Flatten", "Linear", "ReLU", "Dropout", "Linear"]
