"""Random models, losses, hooks and contexts for tests of the Balancer."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Block = Callable[[Tensor], Tensor]


class Stop(torch.autograd.Function):
    """A custom function whose backward returns None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return None


class ClippedFunction(torch.autograd.Function):
    """A custom function whose backward is not linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.5

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return cotangents[0].clamp(-0.02, 0.02)


class LinearFunction(torch.autograd.Function):
    """A custom function that is linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.5

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return cotangents[0] * 1.5


@dataclass
class Graph:
    """A model as a chain of blocks on (R, d) features, with its random choices.

    Args:
        seed: of all draws.
        wide: whether layers are so wide that inner products without gradients save time.
    """

    seed: int
    wide: bool = False
    notes: list[str] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        torch.manual_seed(self.seed)
        draw = self.random
        self.width = draw.choice([64, 96]) if self.wide else draw.choice([3, 4, 6, 8])
        self.rows = draw.choice([1, 2, 4, 6]) if self.wide else draw.choice([1, 2, 5, 8])
        self.tasks = draw.choice([1, 2, 3, 3, 3, 4, 4, 5, 5, 8]) if draw.random() < 0.93 else draw.choice([17, 40])
        self.blocks = self.chain()
        self.late_hook = draw.random() < 0.15
        self.context = draw.choice(["plain"] * 6 + ["anomaly", "grad exists", "retain_graph"])
        self.make_heads()
        self.x = self.inputs()

    # --- the model -------------------------------------------------------------------------------------------------------

    def own(self, module: nn.Module) -> nn.Module:
        self.parameters += list(module.parameters())
        return module

    def weight(self, *shape: int) -> Tensor:
        parameter = nn.Parameter(torch.randn(*shape) / max(shape) ** 0.5)
        self.parameters.append(parameter)
        return parameter

    def linear(self, bias: bool = True) -> Block:
        return self.own(nn.Linear(self.width, self.width, bias=bias))

    def chain(self) -> list[Block]:
        blocks: list[Block] = [self.linear()]
        for _ in range(self.random.randint(1, 4)):
            name = self.random.choice(list(BLOCKS))
            self.notes.append(name)
            blocks.append(BLOCKS[name](self))
            if self.random.random() < 0.6:
                blocks.append(self.activation())
            if self.random.random() < 0.06:
                blocks.append(self.hook())
        if self.random.random() < 0.8:
            blocks.append(self.linear())
        return blocks

    def activation(self) -> Block:
        name, activation = self.random.choice(ACTIVATIONS)
        self.notes.append(name)
        return activation

    def hook(self) -> Block:
        name = self.random.choice(list(HOOKS))
        self.notes.append(f"hook: {name}")

        def block(x: Tensor) -> Tensor:
            if x.requires_grad:
                HOOKS[name](x)
            return x

        return block

    def features(self, late: bool = False) -> list[Tensor]:
        """The features after every block."""
        x, found = self.x, []
        for block in self.blocks:
            x = block(x)
            if x.layout is not torch.strided:
                x = x.to_dense()
            found.append(x)
            if late and len(found) == 1:
                x.register_hook(lambda g: g * 0.1)
        return found

    def inputs(self) -> Tensor:
        x = torch.randn(self.rows, self.width)
        if self.random.random() < 0.05:
            self.notes.append("sparse input")
            return (x * (x > 0)).to_sparse()
        return x

    # --- the losses ------------------------------------------------------------------------------------------------------

    def make_heads(self) -> None:
        self.heads, self.kinds = [], []
        before = len(self.parameters)
        kinds = AT_THE_FEATURES if self.random.random() < 0.75 else KINDS
        for _ in range(self.tasks):
            self.heads.append(self.own(nn.Linear(self.width, self.random.choice([1, 2]))))
            self.kinds.append(self.random.choice(kinds))
        self.shared = self.parameters[:before]
        self.notes += self.kinds if self.tasks <= 8 else []

    def losses(self, late: bool = False) -> dict[str, Tensor]:
        levels = self.features(late)
        z, found = levels[-1], dict[str, Tensor]()
        for place, (head, kind) in enumerate(zip(self.heads, self.kinds, strict=True)):
            out = head(z) - place / 3
            square = out.square().mean()
            match kind:
                case "square":
                    loss = square
                case "sum":
                    loss = out.sum()
                case "large":
                    loss = 1e3 * out.exp().clamp(max=1e3).mean()
                case "direct":
                    loss = z[:, 0].sum() * (-1) ** place
                case "penalty":
                    loss = square + self.shared[0].square().sum()
                case "early":
                    loss = head(levels[len(levels) // 2].reshape(-1)[: self.width]).square().mean()
                case "both":
                    loss = square + levels[len(levels) // 2].mean()
                case "zero":
                    loss = square * 0
                case "same":
                    loss = next(iter(found.values()), square)
                case "opposite":
                    loss = -next(iter(found.values()), square)
                case "leaf":
                    loss = self.shared[-1].reshape(-1)[0]
            found[f"t{place}"] = loss
        return found

    def surroundings(self) -> AbstractContextManager[Any]:
        return torch.autograd.set_detect_anomaly(True) if self.context == "anomaly" else nullcontext()


AT_THE_FEATURES = ["square"] * 8 + ["sum", "large", "direct", "zero", "same", "opposite"]
KINDS = [*AT_THE_FEATURES, "penalty", "early", "both", "leaf"]

ACTIVATIONS: list[tuple[str, Block]] = [
    ("relu", torch.relu), ("tanh", torch.tanh), ("gelu", F.gelu), ("silu", F.silu), ("sigmoid", torch.sigmoid),
    ("elu", F.elu), ("softplus", F.softplus), ("leaky", lambda x: F.leaky_relu(x, 0.1)), ("softmax", lambda x: x.softmax(-1)),
    ("hardtanh", F.hardtanh), ("sin", torch.sin), ("square", lambda x: x * x), ("abs", torch.abs),
    ("in place", lambda x: F.relu(x * 1.0, inplace=True)), ("log", lambda x: torch.log1p(x.abs())),
]  # fmt: skip


def _halve(gradient: Tensor) -> Tensor | None:
    """Half the gradient, in place unless its memory is shared between entries."""
    return gradient * 0.5 if 0 in gradient.stride() else gradient.mul_(0.5)


def _store(x: Tensor) -> None:
    kept: list[Tensor] = []
    x.register_hook(kept.append)


def _clip(x: Tensor, most: float) -> None:
    x.register_hook(lambda g: g * (most / g.norm()) if g.norm() > most else g)


def _node(x: Tensor) -> None:
    assert x.grad_fn is not None
    x.grad_fn.register_hook(lambda inputs, _: tuple(None if g is None else g * 0.5 for g in inputs))


def _before(x: Tensor) -> None:
    assert x.grad_fn is not None
    x.grad_fn.register_prehook(lambda outputs: tuple(None if g is None else g * 0.5 for g in outputs))


def _hook_norm(x: Tensor) -> None:
    norms: list[float] = []
    x.register_hook(lambda g: norms.append(g.norm().item()))


HOOKS: dict[str, Callable[[Tensor], object]] = {
    "scale": lambda x: x.register_hook(lambda g: g * 0.3),
    "in place": lambda x: x.register_hook(_halve),
    "store": _store,
    "clip": lambda x: _clip(x, 0.3),
    "clip rarely": lambda x: _clip(x, 5.0),
    "log": _hook_norm,
    "node": _node,
    "node before": _before,
    "none": lambda x: x.register_hook(lambda g: None),
    "retain_grad": lambda x: x.retain_grad(),
}


def _product(graph: Graph) -> Block:
    weight = graph.weight(graph.width, graph.width)
    return lambda x: x @ weight


def _transposed_weight(graph: Graph) -> Block:
    weight, mask = graph.weight(graph.width, graph.width), torch.rand(graph.width, graph.width) > 0.5
    hooked = graph.random.random() < 0.5

    def block(x: Tensor) -> Tensor:
        transposed = weight.t()
        if hooked:
            transposed.register_hook(lambda g: g * mask)
        return x @ transposed

    return block


def _addmm(graph: Graph) -> Block:
    weight, bias = graph.weight(graph.width, graph.width), graph.weight(graph.width)
    beta, alpha = graph.random.choice([(1, 1), (0.1, 1), (1, 0.5), (0.3, 2)])
    return lambda x: torch.addmm(bias, x, weight.t(), beta=beta, alpha=alpha)


def _pool(graph: Graph) -> Block:
    kind = graph.random.choice(["sum", "mean", "transposed", "max", "norm"])
    match kind:
        case "sum":
            return lambda x: x.sum(0, keepdim=True)
        case "mean":
            return lambda x: x.mean(0, keepdim=True).expand(len(x), -1)
        case "transposed":
            return lambda x: x.t()[:, :1].expand(-1, x.shape[1]).contiguous()
        case "max":
            return lambda x: x.amax(0, keepdim=True) + x
        case _:
            return lambda x: x / (1 + x.norm(dim=0, keepdim=True))


def _attention(graph: Graph) -> Block:
    q, k, v = (graph.linear(bias=False) for _ in range(3))
    return lambda x: (q(x) @ k(x).t() / 4).softmax(-1) @ v(x)


def _heads_attention(graph: Graph) -> Block:
    q, k, v = (graph.linear() for _ in range(3))

    def block(x: Tensor) -> Tensor:
        parts = [
            f(x).unflatten(1, (-1, graph.width // (2 if graph.width % 2 == 0 else 1))).transpose(0, 1)
            for f in (q, k, v)
        ]
        return F.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1)

    return block


def _packed_attention(graph: Graph) -> Block:
    inner = graph.own(nn.MultiheadAttention(graph.width, 1, batch_first=True))
    return lambda x: inner(x[None], x[None], x[None], need_weights=False)[0][0]


def _adjacency(graph: Graph) -> Block:
    inner = graph.linear()
    layout = graph.random.choice(["coo", "csr", "mm"])

    def block(x: Tensor) -> Tensor:
        h = inner(x)
        torch.manual_seed(graph.seed)
        dense = (torch.rand(len(h), len(h)) > 0.5).to(h.dtype) + torch.eye(len(h))
        if layout == "mm":
            product: Tensor = torch.sparse.mm(dense.to_sparse(), h)
            return product
        return (dense.to_sparse() if layout == "coo" else dense.to_sparse_csr()) @ h

    return block


def _checkpoint(graph: Graph) -> Block:
    inner = nn.Sequential(nn.Linear(graph.width, graph.width), nn.ReLU(), nn.Dropout(0.3))
    graph.own(inner)
    return lambda x: checkpoint(inner, x, use_reentrant=False)


def _function(graph: Graph) -> Block:
    function = graph.random.choice([Stop, ClippedFunction, LinearFunction])
    inner = graph.linear()
    return lambda x: x + function.apply(inner(x))


def _norm(graph: Graph) -> Block:
    kind = graph.random.choice(["layer", "batch", "batch eval", "group", "rms"])
    if kind == "batch" and graph.rows > 1:
        training = graph.own(nn.BatchNorm1d(graph.width))
        return lambda x: training(x) if len(x) > 1 else x
    if kind == "batch eval":
        return graph.own(nn.BatchNorm1d(graph.width).eval())
    if kind == "group":
        return graph.own(nn.GroupNorm(1, graph.width))
    return graph.own(nn.RMSNorm(graph.width) if kind == "rms" else nn.LayerNorm(graph.width))


def _again(graph: Graph) -> Block:
    inner = graph.linear()
    return lambda x: inner(torch.tanh(inner(x)))


def _tied(graph: Graph) -> Block:
    weight = graph.weight(graph.width, graph.width)
    return lambda x: F.linear(torch.tanh(F.linear(x, weight)), weight.T)


def _weight_norm(graph: Graph) -> Block:
    return graph.own(nn.utils.parametrizations.weight_norm(nn.Linear(graph.width, graph.width)))


def _residual(graph: Graph) -> Block:
    inner = graph.linear()
    return lambda x: x + inner(x)


def _branches(graph: Graph) -> Block:
    one, two = graph.linear(), graph.linear()
    half = graph.width // 2
    kind = graph.random.choice(["cat", "stack", "chunk", "index", "where"])
    match kind:
        case "cat":
            return lambda x: torch.cat([one(x)[:, :half], two(x)[:, half:]], dim=1)
        case "stack":
            return lambda x: torch.stack([one(x), two(x)]).mean(0)
        case "chunk":
            return lambda x: torch.cat(one(x).chunk(2, 1)[::-1], 1) + two(x)
        case "index":
            return lambda x: one(x)[torch.arange(len(x) - 1, -1, -1)] + two(x)[:, torch.arange(x.shape[1])]
        case _:
            return lambda x: torch.where(x > 0, one(x), two(x))


def _sequence(graph: Graph) -> Block:
    """The features as a sequence of vectors, and a layer that is applied to each."""
    size = 2 if graph.width % 2 == 0 else 1
    inner = graph.own(nn.Linear(size, size))
    transposed = graph.random.random() < 0.5

    def block(x: Tensor) -> Tensor:
        y: Tensor = x.unflatten(1, (-1, size))
        y = inner(y.transpose(0, 1)).transpose(0, 1) if transposed else inner(y)
        return y.flatten(1)

    return block


def _recurrent(graph: Graph) -> Block:
    inner = graph.own(graph.random.choice([nn.LSTM, nn.GRU, nn.RNN])(graph.width, graph.width, batch_first=True))
    return lambda x: inner(x[None])[0][0]


def _convolution(graph: Graph) -> Block:
    """Convolutions on the features as one-channel signals or images."""
    draw = graph.random
    two = graph.width % 2 == 0 and draw.random() < 0.6
    shape = (2, graph.width // 2) if two else (graph.width,)
    kind, back = (nn.Conv2d, nn.ConvTranspose2d) if two else (nn.Conv1d, nn.ConvTranspose1d)
    groups = draw.choice([1, 1, 2])
    padding: Any = draw.choice(["valid", "same", 1])
    first = kind(1, 4, 1 if two else 3, padding=padding, bias=draw.random() < 0.7)
    padding = draw.choice([0, "valid"] if two else [0, 1])
    second: nn.Module = kind(4, 4, 1, groups=groups, stride=draw.choice([1, 2]), padding=padding)
    if draw.random() < 0.4:
        stride, dilation = draw.choice([(1, 2), (2, 1), (2, 3)])
        second = back(4, 4, 2, stride=stride, dilation=dilation, groups=groups, output_padding=draw.choice([0, 1]))
    norm = draw.choice([nn.Identity(), nn.GroupNorm(2, 4)])
    inner = nn.Sequential(first, nn.ReLU(), second, norm)
    pool = draw.choice(["none", "max", "average", "adaptive"])
    width = graph.width

    def images(x: Tensor) -> Tensor:
        y: Tensor = inner(x.view(-1, 1, *shape) if x.is_contiguous() else x.reshape(-1, 1, *shape))
        if pool == "max" and min(y.shape[2:]) > 1:
            y = (F.max_pool2d if two else F.max_pool1d)(y, 2)
        elif pool == "average" and min(y.shape[2:]) > 1:
            y = (F.avg_pool2d if two else F.avg_pool1d)(y, 2)
        elif pool == "adaptive":
            y = (F.adaptive_avg_pool2d if two else F.adaptive_avg_pool1d)(y, 1)
        return y.flatten(1)

    if width < 3 and not two:
        return lambda x: x
    try:
        size = images(torch.randn(2, width)).shape[1]
    except RuntimeError:  # a kernel larger than the signal
        return graph.linear()
    graph.own(inner)
    last = graph.own(nn.Linear(size, width))
    return lambda x: last(images(x))


def _embedding(graph: Graph) -> Block:
    table = graph.own(nn.Embedding(5, graph.width))
    return lambda x: x + table((x[:, 0] * 10).long().abs() % 5)


def _affine(graph: Graph) -> Block:
    factor, shift = graph.weight(graph.width), graph.weight(1)
    return lambda x: (x * factor - shift) / (2 + factor.exp()) - x.mean(dim=1, keepdim=True)


def _bilinear(graph: Graph) -> Block:
    inner = graph.linear()
    return lambda x: torch.bmm(inner(x)[:, :, None], x[:, None, :]).sum(-1) / graph.width


def _dropout(graph: Graph) -> Block:
    return nn.Dropout(0.3)


def _empty(graph: Graph) -> Block:
    inner = graph.own(nn.Linear(0, graph.width))
    return lambda x: x + inner(x[:, :0])


BLOCKS: dict[str, Callable[[Graph], Block]] = {
    "linear": lambda graph: graph.linear(),
    "without bias": lambda graph: graph.linear(bias=False),
    "product": _product,
    "w.t()": _transposed_weight,
    "addmm": _addmm,
    "pool": _pool,
    "attention": _attention,
    "heads": _heads_attention,
    "packed attention": _packed_attention,
    "adjacency": _adjacency,
    "checkpoint": _checkpoint,
    "function": _function,
    "norm": _norm,
    "again": _again,
    "tied": _tied,
    "weight norm": _weight_norm,
    "residual": _residual,
    "branches": _branches,
    "sequence": _sequence,
    "recurrent": _recurrent,
    "convolution": _convolution,
    "embedding": _embedding,
    "affine": _affine,
    "bilinear": _bilinear,
    "dropout": _dropout,
    "Linear(0, m)": _empty,
}
