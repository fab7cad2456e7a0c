"""Two tasks in skorch: the criterion is the Balancer's total.

python examples/skorch_net.py
"""

import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

import paretorch as pt


class Model(nn.Module):
    """An encoder and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.sign, self.size = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.encoder(x)
        return self.sign(features).squeeze(1), self.size(features).squeeze(1)


class Total(nn.Module):
    """Outputs and labels in, the Balancer's total out; without gradients, in a validation, the plain sum."""

    def __init__(self) -> None:
        super().__init__()
        self.balancer = pt.Balancer(pt.IMTLG(), tasks=("sign", "size"))

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.balancer.total(losses_of(outputs, labels))


def losses_of(outputs: tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
    sign = binary_cross_entropy_with_logits(outputs[0], (labels > 0).float())
    return {"sign": sign, "size": 100 * mse_loss(outputs[1], labels.abs())}


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(6400, 8)
    labels = x[:, :4].sum(1)
    net = NeuralNet(Model, Total, optimizer=torch.optim.Adam, lr=3e-3, batch_size=64, max_epochs=3, verbose=0)
    net.initialize()
    before = losses_of(net.forward(x), labels)
    net.partial_fit(x, labels)
    after = losses_of(net.forward(x), labels)
    print(", ".join(f"{task} {before[task]:.3f} -> {after[task]:.3f}" for task in before))


if __name__ == "__main__":
    main()
