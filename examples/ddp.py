"""Two tasks on several processes: DistributedDataParallel around a model with a Fork.

torchrun --nproc-per-node 2 examples/ddp.py
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.nn.parallel import DistributedDataParallel

import paretorch as pt


class Model(nn.Module):
    """An encoder, a Fork, and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.fork = pt.Fork(pt.IMTLG(), tasks=("sign", "size"))
        self.heads = nn.ModuleDict({"sign": nn.Linear(64, 1), "size": nn.Linear(64, 1)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        branch = self.fork(self.encoder(x))
        return {task: head(branch[task]).squeeze(1) for task, head in self.heads.items()}


def losses_of(outputs: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    total = x[:, :4].sum(1)
    sign = binary_cross_entropy_with_logits(outputs["sign"], (total > 0).float())
    return {"sign": sign, "size": 100 * mse_loss(outputs["size"], total.abs())}


def main() -> None:
    dist.init_process_group("gloo")  # on GPUs "nccl", and model.to(rank)
    torch.manual_seed(0)
    model = DistributedDataParallel(Model())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(1 + dist.get_rank())  # every rank draws its own batches
    history = []
    for _ in range(150):
        x = torch.randn(64, 8)
        losses = losses_of(model(x), x)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # the Gramian is summed over the ranks: all use the same weights
        optimizer.step()
        history.append({task: loss.item() for task, loss in losses.items()})
    if dist.get_rank() == 0:
        print(", ".join(f"{task} {history[0][task]:.3f} -> {history[-1][task]:.3f}" for task in history[0]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
