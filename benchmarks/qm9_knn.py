"""Mean absolute errors of k nearest neighbours on QM9, on the splits of the workload `qm9`.

    python benchmarks/qm9_knn.py [--train 10000] [--validation 1000] [--test 10831] [--seed 0] [--run DIR]

A molecule is described by its number of atoms of each element and the sorted eigenvalues of its Coulomb matrix (Rupp et al.,
2012). For each target the number of neighbours, the scaling of the descriptor and the weights of the neighbours are chosen by
the validation error; the test error is that of this choice. `--run` adds the test errors of a run of `paretorch train` on the
same splits.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from paretorch.workloads.qm9 import QM9

NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20, 30)
ELEMENTS = (1, 6, 7, 8, 9)
CHUNK = 1000  # molecules whose distances are in memory


def descriptors(atoms: Tensor) -> Tensor:
    """(n, 5 + A): atoms of each element, and the eigenvalues of the Coulomb matrix in descending order of magnitude."""
    numbers, places = atoms[..., 0].double(), atoms[..., 1:].double()
    counts = torch.stack([(numbers == element).sum(dim=1) for element in ELEMENTS], dim=1)
    distances = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    matrix = numbers[:, :, None] * numbers[:, None] / distances.clamp(min=1e-6)  # padding is all at one point
    matrix.diagonal(dim1=1, dim2=2)[:] = 0.5 * numbers**2.4
    values = torch.linalg.eigvalsh(matrix)
    values = values.gather(1, values.abs().argsort(dim=1, descending=True))
    return torch.cat([counts, values], dim=1)


def predictions(train: Tensor, targets: Tensor, queries: Tensor) -> dict[tuple[int, str], Tensor]:
    """(q, T) predictions by number of neighbours and weights."""
    parts: dict[tuple[int, str], list[Tensor]] = {}
    for some in queries.split(CHUNK):
        distance, index = torch.cdist(some, train).topk(max(NEIGHBOURS), largest=False)
        near = targets[index]  # (q, k, T)
        for count, weights in product(NEIGHBOURS, ("equal", "inverse")):
            share = torch.ones_like(distance) if weights == "equal" else 1 / (distance + 1e-6)
            share = share[:, :count] / share[:, :count].sum(dim=1, keepdim=True)
            parts.setdefault((count, weights), []).append((share[..., None] * near[:, :count]).sum(dim=1))
    return {choice: torch.cat(found) for choice, found in parts.items()}


def main() -> None:
    """Prints a table of the errors in the published units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--validation", type=int, default=1_000)
    parser.add_argument("--test", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=None, help="folder of a run on the same splits")
    given = parser.parse_args()
    workload = QM9(given.root, given.train, given.validation, given.test, data_seed=given.seed)
    splits = workload.data()
    streams = {"train": splits.train[0], "validation": splits.validation[0], "test": splits.test[0]}
    inputs = {name: descriptors(stream.inputs) for name, stream in streams.items()}  # type: ignore[attr-defined]
    targets = {
        name: torch.stack([stream.targets[task] for task in workload.tasks], dim=1).double()  # type: ignore[attr-defined]
        for name, stream in streams.items()
    }
    deviation = inputs["train"].std(dim=0).clamp(min=1e-9)
    best: dict[str, tuple[float, float, str]] = {}
    for scaling, scale in (("raw", torch.ones_like(deviation)), ("standardised", deviation)):
        features = {name: value / scale for name, value in inputs.items()}
        found = {
            name: predictions(features["train"], targets["train"], features[name]) for name in ("validation", "test")
        }
        for choice, place in product(found["test"], range(len(workload.tasks))):
            validation, test = (
                float((found[name][choice][:, place] - targets[name][:, place]).abs().mean())
                for name in ("validation", "test")
            )
            task = workload.tasks[place]
            if task not in best or validation < best[task][0]:
                best[task] = (validation, test, f"{choice[0]} neighbours, {choice[1]} weights, {scaling}")
    metrics = {task: each[0] for task, each in workload.metrics().items()}
    mean = (targets["test"] - targets["train"].mean(dim=0)).abs().mean(dim=0)
    run = None if given.run is None else json.loads((given.run / "result.json").read_text())["test"]["metrics"]
    print(f"{splits.facts}")
    print("| target | unit | mean of training | nearest neighbours | choice |" + " run |" * (run is not None))
    print("|---|---|---|---|---|" + "---|" * (run is not None))
    for place, (task, (_, test, chosen)) in enumerate(best.items()):
        scale = metrics[task].scale  # type: ignore[attr-defined]
        line = f"| {task} | {metrics[task].unit} | {scale * mean[place]:.4g} | {scale * test:.4g} | {chosen} |"
        print(line + (f" {run[task]['error']:.4g} |" if run is not None else ""))


if __name__ == "__main__":
    main()
