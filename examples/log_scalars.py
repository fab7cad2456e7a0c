"""The record of every step in TensorBoard.

python examples/log_scalars.py [FOLDER]
tensorboard --logdir FOLDER
"""

import sys
import tempfile

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.tensorboard import SummaryWriter

import paretorch as pt


def main() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    heads = nn.ModuleDict({"sign": nn.Linear(64, 1), "size": nn.Linear(64, 1)})
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=3e-3)
    balancer = pt.Balancer(pt.IMTLG(), tasks=("sign", "size"))
    history = []
    with SummaryWriter(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) as writer:
        for step in range(150):
            x = torch.randn(64, 8)
            features, total = encoder(x), x[:, :4].sum(1)
            outputs = {task: head(features).squeeze(1) for task, head in heads.items()}
            sign = binary_cross_entropy_with_logits(outputs["sign"], (total > 0).float())
            optimizer.zero_grad()
            balance = balancer.backward({"sign": sign, "size": 100 * mse_loss(outputs["size"], total.abs())})
            optimizer.step()
            scalars = balance.scalars("balance")  # plain numbers by name: weights, losses, norms, cosines
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            # Weights & Biases: wandb.log(scalars, step=step); MLflow: mlflow.log_metrics(scalars, step=step)
            history.append({task: scalars[f"balance/loss/{task}"] for task in heads})
    print(", ".join(f"{task} {history[0][task]:.3f} -> {history[-1][task]:.3f}" for task in heads))


if __name__ == "__main__":
    main()
