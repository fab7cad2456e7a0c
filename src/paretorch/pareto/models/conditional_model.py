"""Families: a model for every preference, all made of the same trained parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from paretorch.pareto.models.members import Losses
from paretorch.workloads.forward import Batch

MIDDLE, SIZE = 127.5, 64.0  # of bytes, about


class ConditionalModel(nn.Module):
    """What gives a model for each preference. Subclasses define :meth:`at`; their parameters are what is trained.

    Args:
        model: of the members' architecture; BatchNorm's running statistics are its own, of all preferences together.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = (model,)  # in a tuple, so that its parameters are not the family's

    @property
    def template(self) -> nn.Module:
        """A module of the members' architecture."""
        return self.held[0]

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """Values of the template's parameters and buffers at a preference, (T,), differentiable; those left out are its own."""
        raise TypeError(f"{type(self).__name__} is a ConditionalModel without at()")

    def losses(self, losses_of: Losses, batch: Batch, preference: Tensor) -> Tensor:
        """(T,) losses of the model at a preference, of a batch; absent tasks are zero.

        Args:
            losses_of: around the template.
            batch: one part per stream.
            preference: (T,) on the simplex.
        """
        named = {f"model.{name}": value for name, value in self.at(preference).items()}
        found: Tensor = functional_call(losses_of, named, (batch,))
        return found

    @torch.no_grad()
    def fill(self, model: nn.Module, preference: Tensor) -> None:
        """Copies the member at a preference into a module of its architecture."""
        held = {**dict(self.template.named_parameters()), **dict(self.template.named_buffers())}
        made = self.at(preference)
        # those that are tied once, by their first name
        for name, value in chain(model.named_parameters(), model.named_buffers()):
            value.copy_(made[name] if name in made else held[name])

    def to_device(self, device: str) -> ConditionalModel:
        """On a device, with its template."""
        self.template.to(device)
        return self.to(device)

    def member(self, preference: Tensor) -> dict[str, Tensor]:
        """The state dict of the member at a preference, on the host."""
        model = copy.deepcopy(self.template)
        self.fill(model, preference)
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


class ConditionedNetwork(nn.Module):
    """A model whose inputs carry the preference, which is a buffer: one network, a model for every value of it.

    Inputs (B, C, ...) of real numbers or bytes get T further channels that hold the preference everywhere; a linear map of the
    channels, which begins as the identity on the C given ones, brings them back to C, so that any encoder can follow. Bytes come
    as (x - 127.5) / 64 before that: an affine map away from what an encoder makes of bytes, which the linear map can learn, since
    preferences sum to one.

    Args:
        model: with an encoder and heads by task.
        example: (B, C, ...) inputs of the encoder: the number of channels is theirs.
        tasks: T.

    Raises:
        ValueError: the inputs are no tensor of at least two dimensions of floating numbers or bytes.

    Example:
        >>> from paretorch.workloads import MultiTaskModel
        >>> model = MultiTaskModel(nn.Linear(3, 2), {"a": nn.Linear(2, 1)})
        >>> ConditionedNetwork(model, torch.zeros(4, 3), 2).encoder(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    preference: Tensor

    def __init__(self, model: nn.Module, example: Any, tasks: int) -> None:
        super().__init__()
        known = isinstance(example, Tensor) and (example.is_floating_point() or example.dtype == torch.uint8)
        if not known or example.ndim < 2:
            found = (
                f"{tuple(example.shape)} of {example.dtype}" if isinstance(example, Tensor) else type(example).__name__
            )
            raise ValueError(
                f"a preference as input needs encoder inputs (B, C, ...) of real numbers or bytes, got {found}: train a front of "
                "separate models instead, for example with MT2O()"
            )
        channels = example.shape[1]
        self.inner = model
        self.heads = model.heads
        dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), None)
        self.mix = nn.Linear(channels + tasks, channels, bias=False, dtype=dtype)
        with torch.no_grad():
            self.mix.weight[:, :channels].copy_(torch.eye(channels))
        self.register_buffer("preference", torch.full((tasks,), 1 / tasks, dtype=dtype))

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        """Every task's output."""
        features = self.encoder(inputs)
        return {task: head(features) for task, head in self.heads.items()}  # type: ignore[union-attr, operator]

    def encoder(self, inputs: Tensor) -> Any:
        """The model's features of the inputs and the preference."""
        if inputs.dtype == torch.uint8:
            inputs = (inputs.to(self.mix.weight.dtype) - MIDDLE) / SIZE
        held = self.preference.to(inputs).reshape(1, -1, *[1] * (inputs.ndim - 2))
        joined = torch.cat([inputs, held.expand(len(inputs), -1, *inputs.shape[2:])], dim=1)
        return self.inner.encoder(self.mix(joined.movedim(1, -1)).movedim(-1, 1))  # type: ignore[operator]


class ConditionedModel(ConditionalModel):
    """The models that one :class:`ConditionedNetwork` network is at each preference.

    Args:
        model: conditioned.
    """

    def __init__(self, model: ConditionedNetwork) -> None:
        super().__init__(model)
        self.network = model  # whose parameters are the family's

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """The preference alone."""
        return {"preference": preference.to(self.network.preference)}


class ModelSimplex(ConditionalModel):
    r"""Models between T ends: :math:`\theta(w) = \sum_t w_t \theta_t`.

    Args:
        ends: T models of one architecture, with the weights to start from.
    """

    def __init__(self, ends: list[nn.Module]) -> None:
        super().__init__(ends[0])
        tables = [dict(end.named_parameters()) for end in ends]
        self.names = [name for name, value in tables[0].items() if value.requires_grad]
        self.ends = nn.ParameterList([torch.stack([table[name].detach() for table in tables]) for name in self.names])

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """The mixture."""
        mixed = [torch.tensordot(preference.to(end), end, dims=1) for end in self.ends]
        return dict(zip(self.names, mixed, strict=True))


class Hypernetwork(ConditionalModel):
    """A network of the preference, whose outputs are a model's parameters.

    It begins as the given model, whatever the preference: the last layers' weights are zero, their biases the model's own.

    Args:
        model: whose parameters it makes.
        tasks: T.
        hidden: units of each of its two hidden layers; every parameter of the model costs as many and one more.

    Raises:
        ValueError: it has no hidden unit.

    Example:
        >>> from paretorch.workloads import MultiTaskModel
        >>> model = MultiTaskModel(nn.Linear(3, 2), {"a": nn.Linear(2, 1)})
        >>> {name: tuple(value.shape) for name, value in Hypernetwork(model, 2, 8).at(torch.tensor([0.3, 0.7])).items()}
        {'encoder.weight': (2, 3), 'encoder.bias': (2,), 'heads.a.weight': (1, 2), 'heads.a.bias': (1,)}
    """

    def __init__(self, model: nn.Module, tasks: int, hidden: int) -> None:
        super().__init__(model)
        if hidden < 1:
            raise ValueError(f"a hypernetwork has at least 1 hidden unit, got {hidden}")
        made = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.shapes = {name: value.shape for name, value in made.items()}
        dtype = next((value.dtype for value in made.values()), None)
        self.trunk = nn.Sequential(
            nn.Linear(tasks, hidden, dtype=dtype), nn.ReLU(), nn.Linear(hidden, hidden, dtype=dtype), nn.ReLU()
        )
        self.last = nn.ModuleList(nn.Linear(hidden, value.numel(), dtype=value.dtype) for value in made.values())
        with torch.no_grad():
            for layer, value in zip(self.last, made.values(), strict=True):
                layer.weight.zero_()  # type: ignore[operator]
                layer.bias.copy_(value.reshape(-1))  # type: ignore[operator]

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """What it makes of the preference."""
        features = self.trunk(preference.to(next(self.trunk.parameters())))
        return {
            name: layer(features.to(layer.weight.dtype)).reshape(shape)
            for (name, shape), layer in zip(self.shapes.items(), self.last, strict=True)
        }
