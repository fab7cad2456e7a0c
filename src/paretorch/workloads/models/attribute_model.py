"""A model of many binary attributes: an encoder of features and shared scores, and a small head for each attribute.

Attributes of one group are predicted from one score that the encoder computes. Their heads cannot change its sign, so the
gradients of two attributes of a group oppose each other wherever their labels differ: for any weights, their accuracies sum to
at most one plus the share of samples whose labels agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from paretorch.workloads.base import MultiTaskModel
from paretorch.workloads.models.encoders import Encoder

POINTS = 4  # along one side of the map that the hidden layer receives
HIDDEN = 128


class AttributeEncoder(nn.Module):
    """Images -> features and scores: a map of 4 x 4 points, a hidden layer, and a linear layer for the scores.

    Args:
        layers: images -> the last map.
        scores: S, number of scores.
        hidden: D, number of features.
    """

    def __init__(self, layers: Encoder, scores: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.layers = layers
        self.hidden = nn.Sequential(
            nn.AdaptiveAvgPool2d(POINTS), nn.Flatten(), nn.Linear(layers.channels * POINTS**2, hidden), nn.ReLU()
        )
        self.scores = nn.Linear(hidden, scores)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D + S)."""
        features = self.hidden(self.layers(images))
        return torch.cat([features, self.scores(features)], dim=1)


class ScoreHead(nn.Module):
    """One of the encoder's scores times a positive factor, exp(a).

    Args:
        column: of the score in the encoder's output.
    """

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column
        self.log_factor = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D + S) -> (B,)."""
        return features[:, self.column] * self.log_factor.exp()


def attribute_model(layers: Encoder, tasks: Sequence[str], groups: Sequence[Sequence[str]]) -> MultiTaskModel:
    """A model with a head for each attribute.

    Args:
        layers: images -> the last map.
        tasks: names of the attributes.
        groups: attributes that are predicted from one score; other attributes have a linear layer of their own. Every group has a
            score, so the encoder does not depend on ``tasks``.

    Example:
        >>> from paretorch.workloads.models.encoders import encoder
        >>> model = attribute_model(encoder("resnet18", 0.125, 16), ["a", "b", "c"], [("a", "b")])
        >>> {task: tuple(output.shape) for task, output in model(torch.zeros(2, 3, 32, 32)).items()}
        {'a': (2,), 'b': (2,), 'c': (2,)}
    """
    encoder = AttributeEncoder(layers, len(groups))
    columns: Mapping[str, int] = {task: HIDDEN + index for index, group in enumerate(groups) for task in group}
    heads: dict[str, nn.Module] = {
        task: ScoreHead(columns[task])
        if task in columns
        else nn.Sequential(nn.Linear(HIDDEN + len(groups), 1), nn.Flatten(0))
        for task in tasks
    }
    return MultiTaskModel(encoder, heads)
