"""Which operations of torch give other bits with two threads than with one, on this machine.

    python benchmarks/threads.py

Every operation runs on the same tensors with one thread and with two, under deterministic algorithms; of a layer, the output and
the gradients are compared. The table holds for these sizes: another version of torch or another processor may give another one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """The output and the gradients of the parameters, with the buffers as before."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    out = module(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    (out * drawn(*out.shape, seed=1)).sum().backward()
    found = [out.detach(), *(leaf.grad.clone() for leaf in module.parameters() if leaf.grad is not None)]
    module.zero_grad()
    module.load_state_dict(before)
    return found


def adam(values: Tensor) -> list[Tensor]:
    leaf = values.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf])
    for _ in range(3):
        leaf.grad = values * 0.3
        optimizer.step()
    return [leaf.detach()]


def operations() -> dict[str, Callable[[], list[Tensor]]]:
    torch.manual_seed(0)
    long, table, square = drawn(3_000_000), drawn(512, 1024), drawn(512, 512)
    images, sequence = drawn(16, 64, 56, 56), drawn(32, 50, 64)
    words = torch.randint(0, 1000, (64, 200), generator=torch.Generator().manual_seed(0))
    return {
        "elementwise functions": lambda: [long.exp(), long.tanh(), long * 0.3],
        "Adam": lambda: adam(long),
        "matrix products": lambda: [table @ table.T, long[:900_000].view(3, -1) @ long[:900_000].view(3, -1).T],
        "sums along rows and columns": lambda: [table.sum(0), table.sum(1), table.softmax(1)],
        "norm": lambda: [long.norm()],
        "random numbers, dropout": lambda: [drawn(1_000_000), functional.dropout(drawn(100_000), 0.0)],
        "Linear": lambda: layer(nn.Linear(1024, 256), table),
        "Embedding": lambda: layer(nn.Embedding(1000, 64), words),
        "LSTM": lambda: layer(nn.LSTM(64, 64, batch_first=True), sequence),
        "BatchNorm2d": lambda: layer(nn.BatchNorm2d(64), images),
        "cross_entropy": lambda: [functional.cross_entropy(table, torch.arange(512))],
        "pooling, interpolation": lambda: [
            functional.avg_pool2d(images, 2),
            functional.interpolate(images, scale_factor=2),
        ],
        "sum of 32,768 numbers": lambda: [long[:32_768].sum()],
        "sum, mean, dot product of more": lambda: [long.sum(), long.mean(), torch.dot(long, long)],
        "mse_loss of more": lambda: [functional.mse_loss(images, images.flip(0))],
        "BatchNorm1d": lambda: layer(nn.BatchNorm1d(6), drawn(20, 6)),
        "BatchNorm2d, channels last": lambda: layer(nn.BatchNorm2d(64), images.to(memory_format=torch.channels_last)),
        "LayerNorm": lambda: layer(nn.LayerNorm(1024), table),
        "Conv2d": lambda: layer(nn.Conv2d(64, 64, 3, padding=1), images),
        "ConvTranspose2d": lambda: layer(nn.ConvTranspose2d(64, 32, 2, stride=2), images),
        "MultiheadAttention": lambda: layer(nn.MultiheadAttention(64, 4, batch_first=True), *[sequence] * 3),
        "decompositions of 512 x 512": lambda: [*torch.linalg.svd(square), *torch.linalg.eigh(square @ square.T)],
        "decompositions of 8 x 8": lambda: [*torch.linalg.eigh((square[:8] @ square[:8].T).double())],
    }


def results(threads: int) -> dict[str, list[Tensor]]:
    torch.set_num_threads(threads)
    return {name: [value.clone() for value in run()] for name, run in operations().items()}


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    one, two = results(1), results(2)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    for name, values in one.items():
        same = all(torch.equal(value, other) for value, other in zip(values, two[name], strict=True))
        print(f"{'equal' if same else 'other'}  {name}")
