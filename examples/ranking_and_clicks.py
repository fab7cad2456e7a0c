"""A table of search results: an order of the results of each query, and the probability of a click, from the same features.

python examples/ranking_and_clicks.py
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import paretorch as pt

RESULTS = 10  # of a query


def table(queries: int) -> dict[str, Tensor]:
    """Columns of (queries, results): features, clicks that depend on the position too, and grades of a tenth of the queries."""
    features = torch.randn(queries, RESULTS, 12)
    relevance = features[..., 0] + features[..., 1] * features[..., 2]
    chance = torch.sigmoid(relevance - 0.3 * torch.arange(RESULTS))
    grades = relevance.clamp(-2, 2).round()
    grades[torch.rand(queries) > 0.1] = float("nan")
    return {"features": features, "clicked": torch.bernoulli(chance), "grade": grades}


def ranking_loss(scores: Tensor, grades: Tensor) -> Tensor | None:
    """The logistic loss of all pairs of a query's results with different grades; None: no query of the batch has grades."""
    better = grades[:, :, None] > grades[:, None, :]  # False where a grade is missing
    margins = scores[:, :, None] - scores[:, None, :]
    return softplus(-margins[better]).mean() if better.any() else None


def main() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    heads = nn.ModuleDict({"rank": nn.Linear(64, 1), "click": nn.Linear(64, 1)})
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=2e-3)
    balancer = pt.Balancer(pt.IMTLG(), tasks=("rank", "click"), shared=encoder)

    def losses_of(rows: dict[str, Tensor]) -> dict[str, Tensor | None]:
        features = encoder(rows["features"])
        outputs = {task: head(features).squeeze(2) for task, head in heads.items()}
        return {
            "rank": ranking_loss(outputs["rank"], rows["grade"]),
            "click": binary_cross_entropy_with_logits(outputs["click"], rows["clicked"]),
        }

    test = table(400)
    with torch.no_grad():
        before = losses_of(test)
    for _ in range(300):
        optimizer.zero_grad()
        balancer.backward(losses_of(table(16)))  # a task without labels in the batch is None, and left out
        optimizer.step()
    with torch.no_grad():
        after = losses_of(test)
    print(", ".join(f"{task} {before[task]:.3f} -> {after[task]:.3f}" for task in heads))


if __name__ == "__main__":
    main()
