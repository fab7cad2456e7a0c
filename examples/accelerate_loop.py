"""Two tasks in a loop of Accelerate: accumulation and clipping by the Accelerator, the Balancer's total as the loss.

accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.data import DataLoader

import paretorch as pt


class Model(nn.Module):
    """An encoder and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"sign": nn.Linear(64, 1), "size": nn.Linear(64, 1)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.encoder(x)
        return {task: head(features).squeeze(1) for task, head in self.heads.items()}


def main() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loader = DataLoader(torch.randn(64 * 301, 8), batch_size=64)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    balancer = pt.Balancer(pt.IMTLG(), tasks=("sign", "size"), accumulate=2)
    accelerator.register_for_checkpointing(balancer)  # save_state and load_state contain its state
    history = []
    for x in loader:
        with accelerator.accumulate(model):
            outputs, total = model(x), x[:, :4].sum(1)
            sign = binary_cross_entropy_with_logits(outputs["sign"], (total > 0).float())
            losses = {"sign": sign, "size": 100 * mse_loss(outputs["size"], total.abs())}
            accelerator.backward(balancer.total(losses))
            if accelerator.sync_gradients:
                balancer.flush()  # where the last step has fewer batches
                accelerator.clip_grad_norm_(model.parameters(), 1000.0)
            optimizer.step()
            optimizer.zero_grad()
        history.append({task: loss.item() for task, loss in losses.items()})
    accelerator.print(", ".join(f"{task} {history[0][task]:.3f} -> {history[-1][task]:.3f}" for task in history[0]))
    accelerator.end_training()


if __name__ == "__main__":
    main()
