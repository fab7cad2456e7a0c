"""Models of several predictions for each pixel: one shared part, a head per task."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import MultiTaskModel
from paretorch.workloads.dense.labels import Kind
from paretorch.workloads.models.dilated import STRIDE, DilatedHead, DilatedResNet
from paretorch.workloads.models.encoder_weights import load_encoder_weights
from paretorch.workloads.models.mtan import Attended, AttentionHead
from paretorch.workloads.models.segnet import LEAST, SegNet, channels, initialised, prediction

MODELS = ("mtan", "segnet", "dilated_resnet50")
CHANNELS = {Kind.DISTANCE: 1, Kind.INVERSE_DISTANCE: 1, Kind.DIRECTIONS: 3, Kind.OFFSETS: 2}


def check_architecture(name: str) -> None:
    """Fails where there is no architecture called ``name``.

    Raises:
        ValueError: names those that there are.
    """
    if name not in MODELS:
        raise ValueError(f"architecture is one of {', '.join(MODELS)}, got {name!r}")


def check_suits(name: str, size: tuple[int, int]) -> None:
    """Fails where images of (H, W) pixels are too small for an architecture, or would come out at another size.

    Raises:
        ValueError: says which sizes do.
    """
    found = "{} x {}".format(*size)
    if name == "dilated_resnet50" and any(edge % STRIDE for edge in size):
        raise ValueError(f"dilated_resnet50 takes images whose sides are multiples of {STRIDE} pixels, got {found}")
    if name != "dilated_resnet50" and min(size) < LEAST:
        raise ValueError(f"{name} pools five times: expected images of at least {LEAST} x {LEAST} pixels, got {found}")


class Output(nn.Module):
    """A head's channels as what its kind of label means: distances (B, H, W), directions of length one.

    Args:
        head: features -> (B, channels, H, W).
        kind: of the label.
    """

    def __init__(self, head: nn.Module, kind: Kind) -> None:
        super().__init__()
        self.head, self.kind = head, kind

    def forward(self, features: object) -> Tensor:
        """(B, C, H, W) scores or offsets, (B, H, W) distances, (B, 3, H, W) unit vectors."""
        found: Tensor = self.head(features)
        if self.kind in (Kind.DISTANCE, Kind.INVERSE_DISTANCE):
            return found.squeeze(1)
        return functional.normalize(found, dim=1, eps=1e-6) if self.kind == Kind.DIRECTIONS else found


def dense_model(
    name: str, tasks: Mapping[str, Kind], classes: int, width: float = 1.0, encoder_weights: str = ""
) -> MultiTaskModel:
    """The model called ``name`` with a head for each task.

    ``"mtan"``: a shared SegNet, and for each task masks on all its maps; ``"segnet"``: a shared SegNet, and two convolutions for
    each task; ``"dilated_resnet50"``: a shared dilated ResNet-50, and a head of dilated convolutions for each task.

    Args:
        name: one of :data:`MODELS`.
        tasks: the kind of label, by task.
        classes: how many there are, for tasks of classes.
        width: factor on all channels.
        encoder_weights: of the ResNet: ``"torchvision"``, a file, or nothing for random ones.

    Raises:
        ValueError: an unknown architecture, a width that is not above 0, or weights for a SegNet.
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
        return MultiTaskModel(shared, {task: Output(head, tasks[task]) for task, head in heads.items()})
    if encoder_weights:
        raise ValueError(f"encoder_weights are for model='dilated_resnet50'; {name} has none that are published")
    if name == "mtan":
        shared = Attended(width)
        heads = {task: AttentionHead(shared, count, width) for task, count in outputs.items()}
    else:
        shared = SegNet(width, maps=False)
        heads = {task: prediction(sizes[0], count) for task, count in outputs.items()}
    model = MultiTaskModel(shared, {task: Output(head, tasks[task]) for task, head in heads.items()})
    initialised(model)
    return model
