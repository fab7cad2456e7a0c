"""Small encoders without pretrained weights: the vision transformer against a plain one of torch, and strided convolutions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from paretorch.workloads.celeba import CelebA
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.encoders import SMALL_ENCODERS, encoder
from paretorch.workloads.models.small_encoders import TransformerLayer, VisionTransformer, positions
from paretorch.workloads.multimnist import MultiMNIST


def torch_layer(layer: TransformerLayer, channels: int) -> nn.TransformerEncoderLayer:
    """torch's layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(
        channels, layer.heads, 4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    state = {
        "self_attn.in_proj": layer.projection, "self_attn.out_proj": layer.output, "norm1": layer.norm,
        "norm2": layer.second_norm, "linear1": layer.perceptron[0], "linear2": layer.perceptron[2],
    }  # fmt: skip
    values = {}
    for name, module in state.items():
        mark = "_" if name.endswith("in_proj") else "."
        for part in ("weight", "bias"):
            values[f"{name}{mark}{part}"] = getattr(module, part)
    theirs.load_state_dict(values)
    return theirs.eval()


def test_transformer_layer_equals_that_of_torch() -> None:
    torch.manual_seed(2)
    layer = TransformerLayer(24, heads=3)
    tokens = torch.randn(5, 7, 24)
    torch.testing.assert_close(layer(tokens), torch_layer(layer, 24)(tokens), rtol=1e-4, atol=1e-5)


def test_vision_transformer_embeds_each_patch_at_its_position() -> None:
    """Without layers a point of the map is the norm of its patch's linear function plus its position."""
    torch.manual_seed(3)
    model = VisionTransformer(3, 12, heads=3, layers=0, patch=4)
    images = torch.randn(2, 3, 8, 12)
    found = model(images)
    assert found.shape == (2, 12, 2, 3)
    weight, bias = model.patches.weight.flatten(1), model.patches.bias
    assert bias is not None
    for row in range(2):
        for column in range(3):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
            place = positions(2, 3, 12)[3 * row + column]
            expected = model.norm(patch @ weight.T + bias + place)
            torch.testing.assert_close(found[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_vision_transformer_positions_are_distinct_and_of_constant_length() -> None:
    found = positions(9, 9, 48)
    torch.testing.assert_close(found.square().sum(dim=1), torch.full((81,), 24.0))
    assert float((torch.cdist(found, found) + 10 * torch.eye(81)).min()) > 0.5


def test_vision_transformer_pads_images_to_whole_patches() -> None:
    model = VisionTransformer(1, 12, heads=3, layers=1, patch=7).eval()
    image = torch.randn(1, 1, 28, 30)
    padded = nn.functional.pad(image, (0, 5))
    assert torch.equal(model(image), model(padded))
    assert model(image).shape == (1, 12, 4, 5)


def test_vit_has_192_channels_and_the_parameters_of_four_layers() -> None:
    made = encoder("vit", stride=8)
    assert made.channels == 192
    layer = 12 * 192**2 + 13 * 192
    assert sum(p.numel() for p in made.parameters()) == 4 * layer + 192 * (3 * 64 + 1) + 2 * 192


@pytest.mark.parametrize("name", SMALL_ENCODERS)
@pytest.mark.parametrize("width", [0.1, 0.35, 1.0])
@pytest.mark.parametrize("stride", [16, 8, 4])
def test_small_encoders_accept_any_width_stride_and_size(name: str, width: float, stride: int) -> None:
    made = encoder(name, width, stride)
    features = made(torch.randint(256, (2, 3, 40, 64), dtype=torch.uint8))
    assert features.shape == (2, made.channels, math.ceil(40 / stride), 64 // stride)
    assert bool(features.isfinite().all())


def test_vit_is_trained_on_one_image_with_one_patch() -> None:
    made = encoder("vit", width=0.25, stride=32)
    loss: Tensor = made(torch.randn(1, 3, 32, 32)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    with pytest.raises(ValueError, match="batch norm cannot be trained on 1 image"):
        encoder("convnet", stride=32)(torch.randn(1, 3, 32, 32))


def test_small_encoders_have_no_weights_of_torchvision() -> None:
    with pytest.raises(
        ValueError, match=r"torchvision has no weights for vit: use one of mobilenet_v3_large, .*or omit"
    ):
        load_encoder_weights(encoder("vit", stride=8), "torchvision")


@pytest.mark.parametrize(("variant", "edge", "patch"), [("sener", 28, 4), ("sener", 28, 7), ("pmtl", 36, 4)])
def test_multimnist_vit_has_the_features_of_the_lenet(variant: str, edge: int, patch: int) -> None:
    made = MultiMNIST(variant, encoder="vit", patch=patch)
    images = torch.randint(256, (3, 1, edge, edge), dtype=torch.uint8)
    assert made.model().encoder(images).shape == (3, 50)  # type: ignore[operator]
    assert {tuple(output.shape) for output in made.model()(images).values()} == {(3, 10)}


def test_multimnist_encoder_options_out_of_range_are_errors() -> None:
    with pytest.raises(ValueError, match="encoder is one of lenet, vit, got 'cnn'"):
        MultiMNIST(encoder="cnn")
    with pytest.raises(ValueError, match="patch is at most the image's 28 pixels, got 29"):
        MultiMNIST(encoder="vit", patch=29)


def test_celeba_with_a_vit_has_one_logit_for_each_attribute() -> None:
    model = CelebA(encoder="vit", stride=8).model()
    assert {tuple(output.shape) for output in model(torch.zeros(2, 3, 64, 64)).values()} == {(2,)}
    assert sum(parameter.numel() for parameter in model.heads["Smiling"].parameters()) == 193  # type: ignore[index, union-attr]


def test_vision_transformer_channels_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="a multiple of 4 and of the 3 heads, got 20"):
        VisionTransformer(1, 20, heads=3, layers=1, patch=4)
