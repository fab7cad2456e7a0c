"""Two tasks in Ignite: the loss function of a supervised trainer is the Balancer's total.

python examples/ignite_engine.py
"""

import torch
from ignite.engine import Events, create_supervised_trainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import paretorch as pt


class Model(nn.Module):
    """An encoder and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"sign": nn.Linear(64, 1), "size": nn.Linear(64, 1)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.encoder(x)
        return {task: head(features).squeeze(1) for task, head in self.heads.items()}


def losses_of(outputs: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    sign = binary_cross_entropy_with_logits(outputs["sign"], (labels > 0).float())
    return {"sign": sign, "size": 100 * mse_loss(outputs["size"], labels.abs())}


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(6400, 8)
    loader = DataLoader(TensorDataset(x, x[:, :4].sum(1)), batch_size=64)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    balancer = pt.Balancer(pt.IMTLG(), tasks=("sign", "size"), accumulate=2)
    trainer = create_supervised_trainer(
        model,
        optimizer,
        lambda outputs, labels: balancer.total(losses_of(outputs, labels)),
        gradient_accumulation_steps=2,
    )
    history: list[dict[str, float]] = []

    @trainer.on(Events.ITERATION_COMPLETED(every=2))
    def record() -> None:
        scalars = balancer.balance.scalars()  # with every logger of Ignite, or one of yours
        history.append({task: scalars[f"loss/{task}"] for task in balancer.tasks})

    trainer.run(loader, max_epochs=3)
    print(", ".join(f"{task} {history[0][task]:.3f} -> {history[-1][task]:.3f}" for task in balancer.tasks))


if __name__ == "__main__":
    main()
