"""Distillation with three losses: the labels, the teacher's probabilities, and the teacher's features.

python examples/distillation.py
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss

import paretorch as pt


def network(width: int) -> nn.ModuleDict:
    encoder = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.ModuleDict({"encoder": encoder, "classes": nn.Linear(width, 4)})


def batch(size: int = 128) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 10)
    return x, 2 * (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] + x[:, 3] > 0).long()


def main() -> None:
    torch.manual_seed(0)
    teacher, student, projection = network(128), network(16), nn.Linear(16, 128)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(300):
        x, labels = batch()
        optimizer.zero_grad()
        cross_entropy(teacher["classes"](teacher["encoder"](x)), labels).backward()
        optimizer.step()
    balancer = pt.Balancer(pt.UPGrad(), tasks=("labels", "teacher", "features"))
    optimizer = torch.optim.Adam([*student.parameters(), *projection.parameters()], lr=3e-3)

    def losses_of(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            known = teacher["encoder"](x)
            target = log_softmax(teacher["classes"](known) / 2, 1)  # at temperature 2
        features = student["encoder"](x)
        outputs = student["classes"](features)
        return {
            "labels": cross_entropy(outputs, labels),
            "teacher": 4 * kl_div(log_softmax(outputs / 2, 1), target, reduction="batchmean", log_target=True),
            "features": mse_loss(projection(features), known),
        }

    test = batch(2000)
    with torch.no_grad():
        before = losses_of(*test)
    for _ in range(400):
        optimizer.zero_grad()
        balancer.backward(losses_of(*batch()))
        optimizer.step()
    with torch.no_grad():
        after = losses_of(*test)
    print(", ".join(f"{task} {before[task]:.3f} -> {after[task]:.3f}" for task in before))


if __name__ == "__main__":
    main()
