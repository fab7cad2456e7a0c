"""Two tasks in Lightning: a Balancer in the LightningModule, its total as the loss, its record in the log.

python examples/lightning_module.py
"""

import csv
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.data import DataLoader

import paretorch as pt
from paretorch.integrations.lightning import BalanceLogger


class Module(LightningModule):
    """The Balancer is a module: its state is in Lightning's checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"sign": nn.Linear(64, 1), "size": nn.Linear(64, 1)})
        self.balancer = pt.Balancer(pt.IMTLG(), tasks=("sign", "size"), accumulate=2)

    def training_step(self, x: Tensor, _: int) -> Tensor:
        features, total = self.encoder(x), x[:, :4].sum(1)
        outputs = {task: head(features).squeeze(1) for task, head in self.heads.items()}
        sign = binary_cross_entropy_with_logits(outputs["sign"], (total > 0).float())
        return self.balancer.total({"sign": sign, "size": 100 * mse_loss(outputs["size"], total.abs())})

    def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
        self.balancer.flush()  # where the last step of an epoch has fewer batches

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([*self.encoder.parameters(), *self.heads.parameters()], lr=3e-3)


def main() -> None:
    loader = DataLoader(torch.randn(64 * 301, 8, generator=torch.Generator().manual_seed(0)), batch_size=64)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accumulate_grad_batches=2,
            logger=CSVLogger(folder, name="", version=""),
            callbacks=[BalanceLogger(every_n_steps=1)],
        )
        trainer.fit(Module(), loader)
        with (Path(folder) / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
    losses = {task: [float(rows[at][f"balance/loss/{task}"]) for at in (0, -1)] for task in ("sign", "size")}
    print(", ".join(f"{task} {first:.3f} -> {last:.3f}" for task, (first, last) in losses.items()))


if __name__ == "__main__":
    main()
