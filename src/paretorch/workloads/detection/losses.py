"""The loss of a map for centres of objects."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.workloads.detection.boxes import BOX, center_targets

FOCUS, FALLOFF = 2, 4  # exponents alpha and beta of the focal loss
SIZE_WEIGHT = 0.1  # of the absolute error of width and height, in points of the map


def center_loss(maps: Tensor, objects: Tensor) -> Tensor | None:
    r"""The focal loss of the heat, and absolute errors of size and position, for each object; None without objects.

    .. math:: \frac{-1}{N} \sum_{p} \begin{cases} (1 - \hat y_p)^2 \log \hat y_p & y_p = 1 \\
        (1 - y_p)^4 \hat y_p^2 \log(1 - \hat y_p) & \text{otherwise} \end{cases}
        + \frac{1}{N} \sum_{n} (0.1 \lVert \hat s_n - s_n \rVert_1 + \lVert \hat o_n - o_n \rVert_1)

    with the heat y, the predicted one, sizes s and positions o at the N objects' centres. Images without objects are background.

    Args:
        maps: (B, C + 4, h, w).
        objects: (B, K, 5), see :mod:`.detection.boxes`.

    References:
        Zhou, Wang & Krähenbühl, "Objects as points", 2019, eq. (1)-(4).
    """
    scores, boxes = maps[:, :-BOX], maps[:, -BOX:]
    targets = center_targets(objects.to(maps.device), scores.shape[1], *maps.shape[2:])
    count = targets.present.sum()
    if not bool(count):
        return None
    heat = targets.heat.to(scores.dtype)
    likely = scores.sigmoid()
    found = (1 - likely).pow(FOCUS) * functional.logsigmoid(scores)
    background = (1 - heat).pow(FALLOFF) * likely.pow(FOCUS) * functional.logsigmoid(-scores)
    focal = -torch.where(heat >= 1, found, background).sum()
    own = boxes.flatten(2).gather(2, targets.points[:, None].expand(-1, BOX, -1)).mT  # (B, K, 4)
    errors = (own - targets.boxes.to(own.dtype)).abs() * targets.present[..., None]
    weights = errors.new_tensor([SIZE_WEIGHT, SIZE_WEIGHT, 1.0, 1.0])
    return (focal + (errors * weights).sum()) / count


def object_count(objects: Tensor) -> Tensor:
    """The number of objects in (B, K, 5), (): that over which the loss is a mean."""
    return (objects[..., 0] >= 0).sum()
