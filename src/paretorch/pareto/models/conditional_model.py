"""Conditional models: a model for each preference, from the same trained parameters."""

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

BYTE_MEAN, BYTE_SCALE = 127.5, 64.0  # approximate mean and standard deviation of bytes


class ConditionalModel(nn.Module):
    """A function from preferences to models. Subclasses define :meth:`at`; their parameters are trained.

    Args:
        model: of the members' architecture; its BatchNorm statistics are of all preferences together.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.wrapped = (model,)  # in a tuple, so that it is not a submodule

    @property
    def template(self) -> nn.Module:
        """A module of the members' architecture."""
        return self.wrapped[0]

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """Differentiable parameters and buffers at a preference, (T,), by name; missing ones are the template's."""
        raise TypeError(f"{type(self).__name__} is a ConditionalModel without at()")

    def losses(self, losses_of: Losses, batch: Batch, preference: Tensor) -> Tensor:
        """(T,) losses of the model at a preference on a batch; zero for absent tasks.

        Args:
            losses_of: the losses of the template.
            batch: one part per stream.
            preference: (T,) on the simplex.
        """
        named = {f"model.{name}": value for name, value in self.at(preference).items()}
        found: Tensor = functional_call(losses_of, named, (batch,))
        return found

    @torch.no_grad()
    def fill(self, model: nn.Module, preference: Tensor) -> None:
        """Copies the values at a preference into a module of the members' architecture."""
        own = {**dict(self.template.named_parameters()), **dict(self.template.named_buffers())}
        values = self.at(preference)
        # tied parameters once, by their first name
        for name, value in chain(model.named_parameters(), model.named_buffers()):
            value.copy_(values[name] if name in values else own[name])

    def to_device(self, device: str) -> ConditionalModel:
        """Moves this module and its template to a device."""
        self.template.to(device)
        return self.to(device)

    def member(self, preference: Tensor) -> dict[str, Tensor]:
        """The state dict of the member at a preference, on the host."""
        model = copy.deepcopy(self.template)
        self.fill(model, preference)
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


class ConditionedNetwork(nn.Module):
    """A model with the preference as an additional input, which is a buffer.

    Inputs (B, C, ...) of real numbers or bytes are concatenated with T constant channels of the preference. A linear map
    reduces the channels to C, so that any encoder can follow; it is initialized as the identity on the C input channels. Bytes
    are first normalized to (x - 127.5) / 64; the linear map can represent every other affine normalization, since preferences
    sum to one.

    Args:
        model: with an encoder and heads by task.
        example: (B, C, ...) inputs of the encoder, which determine C.
        tasks: T.

    Raises:
        ValueError: the inputs are not a floating-point or byte tensor of at least two dimensions.

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
                f"a preference as an input requires encoder inputs (B, C, ...) of real numbers or bytes, got {found}: train a "
                "front of separate models instead, for example with MT2O()"
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
        """The output of each task."""
        features = self.encoder(inputs)
        return {task: head(features) for task, head in self.heads.items()}  # type: ignore[union-attr, operator]

    def encoder(self, inputs: Tensor) -> Any:
        """Features of the inputs and the preference."""
        if inputs.dtype == torch.uint8:
            inputs = (inputs.to(self.mix.weight.dtype) - BYTE_MEAN) / BYTE_SCALE
        channels = self.preference.to(inputs).reshape(1, -1, *[1] * (inputs.ndim - 2))
        joined = torch.cat([inputs, channels.expand(len(inputs), -1, *inputs.shape[2:])], dim=1)
        return self.inner.encoder(self.mix(joined.movedim(1, -1)).movedim(-1, 1))  # type: ignore[operator]


class ConditionedModel(ConditionalModel):
    """The models of one :class:`ConditionedNetwork` at each preference.

    Args:
        model: the network.
    """

    def __init__(self, model: ConditionedNetwork) -> None:
        super().__init__(model)
        self.network = model  # a submodule, whose parameters are trained

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """The preference, as the buffer of the network."""
        return {"preference": preference.to(self.network.preference)}


class ModelSimplex(ConditionalModel):
    r"""The simplex of models between T vertices: :math:`\theta(w) = \sum_t w_t \theta_t`.

    Args:
        ends: T models of one architecture, with initial weights.
    """

    def __init__(self, ends: list[nn.Module]) -> None:
        super().__init__(ends[0])
        tables = [dict(end.named_parameters()) for end in ends]
        self.names = [name for name, value in tables[0].items() if value.requires_grad]
        self.ends = nn.ParameterList([torch.stack([table[name].detach() for table in tables]) for name in self.names])

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """The convex combination of the vertices."""
        mixed = [torch.tensordot(preference.to(end), end, dims=1) for end in self.ends]
        return dict(zip(self.names, mixed, strict=True))


class Hypernetwork(ConditionalModel):
    """A network from preferences to the parameters of a model.

    At first it returns the given model for every preference: the last layers have zero weights and the model's values as biases.

    Args:
        model: whose parameters it computes.
        tasks: T.
        hidden: units of each of its two hidden layers; the network has hidden + 1 parameters for each of the model's.

    Raises:
        ValueError: hidden is below 1.

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
        parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.shapes = {name: value.shape for name, value in parameters.items()}
        dtype = next((value.dtype for value in parameters.values()), None)
        self.trunk = nn.Sequential(
            nn.Linear(tasks, hidden, dtype=dtype), nn.ReLU(), nn.Linear(hidden, hidden, dtype=dtype), nn.ReLU()
        )
        self.last = nn.ModuleList(nn.Linear(hidden, value.numel(), dtype=value.dtype) for value in parameters.values())
        with torch.no_grad():
            for layer, value in zip(self.last, parameters.values(), strict=True):
                layer.weight.zero_()  # type: ignore[operator]
                layer.bias.copy_(value.reshape(-1))  # type: ignore[operator]

    def at(self, preference: Tensor) -> Mapping[str, Tensor]:
        """The outputs of the network, by parameter name."""
        features = self.trunk(preference.to(next(self.trunk.parameters())))
        return {
            name: layer(features.to(layer.weight.dtype)).reshape(shape)
            for (name, shape), layer in zip(self.shapes.items(), self.last, strict=True)
        }
