"""SegNet, task attention and dilated ResNet-50: published parameter counts, shared parameters, exact balancing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import paretorch as pt
from paretorch.training.model_size import parameter_counts
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.models.dense import MODELS, dense_model
from paretorch.workloads.models.dilated import DilatedHead, DilatedResNet
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.mtan import AttentionEncoder
from paretorch.workloads.models.segnet import Maps, SegNet

INDOORS = {"segmentation": LabelKind.CLASSES, "depth": LabelKind.DISTANCE, "normals": LabelKind.DIRECTIONS}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_segnet_of_one_task_has_the_published_number_of_parameters() -> None:
    """24,981,069, the reference of the relative sizes that the authors' programs print."""
    with torch.device("meta"):
        alone = dense_model("segnet", {"segmentation": LabelKind.CLASSES}, classes=13)
    assert count(alone) == 24_981_069


def test_mtan_has_the_published_number_of_parameters() -> None:
    """1.77 single SegNets at three tasks (Liu, Johns & Davison 2019, table 1), and the sum of the paper's layers."""

    def conv(inputs: int, outputs: int, edge: int = 3, norm: bool = True) -> int:
        return inputs * outputs * edge**2 + outputs + 2 * outputs * norm

    sizes = (64, 128, 256, 512, 512)
    finer = (64, 64, 128, 256, 512)
    coarser = (128, 256, 512, 512, 512)
    more = (1, 1, 2, 2, 2)
    segnet = conv(3, 64) + sum(conv(a, b) for a, b in zip(finer[1:], sizes[1:], strict=True))
    segnet += sum(n * conv(c, c) for n, c in zip(more, sizes, strict=True))
    segnet += sum(conv(a, b) + n * conv(b, b) for a, b, n in zip(sizes, finer, more, strict=True))
    between = sum(conv(a, b) for a, b in zip(sizes, coarser, strict=True))  # between the masks of the encoder
    between += conv(512, 512) + sum(conv(a, b) for a, b in zip(sizes[:-1], finer[:-1], strict=True))
    masks = sum(conv(c * (1 + (i > 0)), c, 1) + conv(c, c, 1) for i, c in enumerate(sizes))
    arriving = (*finer[:-1], 512)
    masks += sum(conv(a + b, c, 1) + conv(c, c, 1) for a, b, c in zip(sizes, arriving, finer, strict=True))
    heads = sum(masks + conv(64, 64, norm=False) + conv(64, outputs, 1, norm=False) for outputs in (13, 1, 3))
    with torch.device("meta"):
        counts = parameter_counts(dense_model("mtan", INDOORS, classes=13))
    assert counts["encoder"] == segnet + between == 35_163_456
    assert counts["total"] == segnet + between + heads == 44_229_073
    assert round(counts["total"] / 24_981_069, 2) == 1.77


@pytest.mark.long
def test_dilated_resnet_equals_torchvision(tmp_path: Any) -> None:
    from torchvision.models import resnet50
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    torch.manual_seed(0)
    whole = resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    ours = DilatedResNet().eval()
    load_encoder_weights(ours, tmp_path / "whole.safetensors")
    inputs_of_pooling: list[Tensor] = []
    whole.avgpool.register_forward_pre_hook(lambda _, inputs: inputs_of_pooling.append(inputs[0]))
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        whole((images - ours.mean) / ours.spread)
        torch.testing.assert_close(ours(images), inputs_of_pooling[0])
    assert inputs_of_pooling[0].shape == (1, 2048, 4, 6)
    with torch.device("meta"):
        assert count(DilatedHead(2048, 13)) == count(DeepLabHead(2048, 13))


@pytest.mark.parametrize("name", MODELS)
def test_dense_model_outputs_have_the_shape_of_their_labels(name: str) -> None:
    torch.manual_seed(0)
    model = dense_model(name, {**INDOORS, "instance": LabelKind.OFFSETS}, classes=5, width=0.125)
    outputs = model(torch.rand(2, 3, 32, 64))
    assert outputs["segmentation"].shape == (2, 5, 32, 64)
    assert outputs["depth"].shape == (2, 32, 64)
    assert outputs["instance"].shape == (2, 2, 32, 64)
    torch.testing.assert_close(outputs["normals"].norm(dim=1), torch.ones(2, 32, 64))


def test_dense_models_accept_sides_that_are_no_multiples_of_32() -> None:
    model = dense_model("mtan", INDOORS, classes=5, width=0.125)
    assert model(torch.rand(2, 3, 37, 70))["segmentation"].shape == (2, 5, 37, 70)
    with pytest.raises(ValueError, match=r"at least 32 x 32 pixels, got 31 x 64"):
        model(torch.rand(2, 3, 31, 64))


def test_segnet_output_is_its_finest_decoded_map() -> None:
    torch.manual_seed(0)
    whole, last = SegNet(0.125).eval(), SegNet(0.125, maps=False).eval()
    last.load_state_dict(whole.state_dict())
    images = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        maps = whole(images)
        assert isinstance(maps, Maps)
        assert torch.equal(last(images), maps.decoded_last[0])
    assert [tuple(level.shape[-2:]) for level in maps.encoded] == [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]


def attended() -> tuple[pt.workloads.MultiTaskModel, Tensor]:
    torch.manual_seed(0)
    model = dense_model("mtan", INDOORS, classes=5, width=0.125).double()
    return model, torch.rand(2, 3, 32, 32, dtype=torch.float64)


def scaled_losses(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        task: output.square().mean() * factor for (task, output), factor in zip(outputs.items(), (1, 3, 9), strict=True)
    }


def test_mtan_balancer_on_the_encoder_includes_convolutions_between_masks() -> None:
    model, images = attended()
    losses = scaled_losses(model(images))
    shared = list(model.encoder.parameters())
    rows = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)])
            for loss in losses.values()
        ]
    )
    balancer = pt.Balancer(pt.MGDA(), shared=model.encoder)
    balance = balancer.backward(losses)
    assert balance.gramian is not None
    assert balance.weights is not None
    torch.testing.assert_close(balance.gramian, rows @ rows.T, rtol=1e-9, atol=1e-14)
    expected = balance.weights.to(rows.dtype) @ rows
    found = torch.cat([parameter.grad.flatten() for parameter in shared if parameter.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
    encoder = model.encoder
    assert isinstance(encoder, AttentionEncoder)
    inside = {id(parameter) for parameter in shared}
    assert all(id(parameter) in inside for part in (encoder.down, encoder.up) for parameter in part.parameters())


def test_mtan_fork_balances_the_segnet_and_sums_convolutions_between_masks() -> None:
    model, images = attended()
    assert isinstance(model.encoder, AttentionEncoder)
    between = [*model.encoder.down.parameters(), *model.encoder.up.parameters()]
    segnet = [p for p in model.encoder.parameters() if all(p is not other for other in between)]
    losses = scaled_losses(model(images))
    rows = {task: torch.autograd.grad(loss, [*segnet, *between], retain_graph=True) for task, loss in losses.items()}
    fork = pt.Fork(pt.MGDA(), tasks=tuple(INDOORS))
    branch = fork(model.encoder(images))
    torch.stack(
        list(scaled_losses({task: head(branch[task]) for task, head in model.heads.items()}).values())
    ).sum().backward()
    assert fork.balance is not None
    assert fork.balance.weights is not None
    weights = dict(zip(INDOORS, fork.balance.weights.tolist(), strict=True))
    assert len({round(weight, 6) for weight in weights.values()}) > 1
    for place, parameter in enumerate([*segnet, *between]):
        factors = weights if place < len(segnet) else dict.fromkeys(INDOORS, 1.0)
        expected = torch.stack([factors[task] * row[place] for task, row in rows.items()]).sum(dim=0)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-12)


def test_mtan_copy_has_separate_convolutions() -> None:
    model, images = attended()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.encoder.down.parameters():
            parameter.zero_()
        assert not torch.allclose(model(images)["depth"], twin(images)["depth"], rtol=1e-3)
        assert isinstance(model.encoder, AttentionEncoder)
        assert bool((next(model.encoder.down.parameters()) != 0).any())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dense_model("unet", INDOORS, 13), "architecture is one of mtan, segnet, dilated_resnet50, got 'unet'"),
        (lambda: dense_model("mtan", INDOORS, 13, width=0.0), "width is a factor above 0"),
        (lambda: dense_model("mtan", INDOORS, 13, encoder_weights="torchvision"), "no published weights for mtan"),
        (lambda: DilatedHead(8, 3, 0.1)(torch.zeros(1, 8, 4, 4)), "batch size of 2 or more"),
    ],
)
def test_dense_model_errors_describe_invalid_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
