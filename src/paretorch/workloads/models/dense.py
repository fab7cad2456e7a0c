"""Models with a shared encoder and a head per task for predictions at each pixel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import MultiTaskModel
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.models.dilated import STRIDE, DilatedHead, DilatedResNet
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.mtan import AttentionEncoder, AttentionHead
from paretorch.workloads.models.segnet import LEAST, SegNet, channels, initialise_weights, prediction

MODELS = ("mtan", "segnet", "dilated_resnet50")
CHANNELS = {LabelKind.DISTANCE: 1, LabelKind.INVERSE_DISTANCE: 1, LabelKind.DIRECTIONS: 3, LabelKind.OFFSETS: 2}


def check_architecture(name: str) -> None:
    """Checks the name of an architecture.

    Raises:
        ValueError: it is none of :data:`MODELS`.
    """
    if name not in MODELS:
        raise ValueError(f"architecture is one of {', '.join(MODELS)}, got {name!r}")


def check_image_size(name: str, size: tuple[int, int]) -> None:
    """Checks that an architecture can be applied to images of (H, W) pixels.

    Raises:
        ValueError: they are too small, or the output would have another size.
    """
    found = "{} x {}".format(*size)
    if name == "dilated_resnet50" and any(edge % STRIDE for edge in size):
        raise ValueError(f"dilated_resnet50 takes images whose sides are multiples of {STRIDE} pixels, got {found}")
    if name != "dilated_resnet50" and min(size) < LEAST:
        raise ValueError(f"{name} pools five times: expected images of at least {LEAST} x {LEAST} pixels, got {found}")


class DenseOutput(nn.Module):
    """A head whose output has the shape of its kind of label; directions are normalised to length one.

    Args:
        head: features -> (B, channels, H, W).
        kind: of the label.
    """

    def __init__(self, head: nn.Module, kind: LabelKind) -> None:
        super().__init__()
        self.head, self.kind = head, kind

    def forward(self, features: object) -> Tensor:
        """(B, C, H, W) scores or offsets, (B, H, W) distances, (B, 3, H, W) unit vectors."""
        found: Tensor = self.head(features)
        if self.kind in (LabelKind.DISTANCE, LabelKind.INVERSE_DISTANCE):
            return found.squeeze(1)
        return functional.normalize(found, dim=1, eps=1e-6) if self.kind == LabelKind.DIRECTIONS else found


def dense_model(
    name: str, tasks: Mapping[str, LabelKind], classes: int, width: float = 1.0, encoder_weights: str = ""
) -> MultiTaskModel:
    """The architecture ``name`` with a head for each task.

    ``"mtan"``: a shared SegNet, and for each task attention masks on all its maps; ``"segnet"``: a shared SegNet, and two
    convolutions for each task; ``"dilated_resnet50"``: a shared dilated ResNet-50, and a head of dilated convolutions for each.

    Args:
        name: one of :data:`MODELS`.
        tasks: kinds of labels by task.
        classes: number of classes, for tasks whose labels are classes.
        width: factor on all channels.
        encoder_weights: of the ResNet: ``"torchvision"``, a file, or empty for random ones.

    Raises:
        ValueError: the architecture is unknown, the width is not above 0, or weights are given for a SegNet.
    """
    check_architecture(name)
    sizes = channels(width)
    outputs = {task: CHANNELS.get(kind, classes) for task, kind in tasks.items()}
    heads: dict[str, nn.Module]
    shared: nn.Module
    if name == "dilated_resnet50":
        shared = DilatedResNet(width)
        heads = {task: DilatedHead(shared.channels, count, width) for task, count in outputs.items()}
        if encoder_weights:
            load_encoder_weights(shared, encoder_weights)
        return MultiTaskModel(shared, {task: DenseOutput(head, tasks[task]) for task, head in heads.items()})
    if encoder_weights:
        raise ValueError(
            f"encoder_weights requires architecture='dilated_resnet50'; there are no published weights for {name}"
        )
    if name == "mtan":
        shared = AttentionEncoder(width)
        heads = {task: AttentionHead(shared, count, width) for task, count in outputs.items()}
    else:
        shared = SegNet(width, maps=False)
        heads = {task: prediction(sizes[0], count) for task, count in outputs.items()}
    model = MultiTaskModel(shared, {task: DenseOutput(head, tasks[task]) for task, head in heads.items()})
    initialise_weights(model)
    return model
