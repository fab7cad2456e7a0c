"""A workload from a DataLoader of your own: a run with checkpoints, from Python.

python examples/own_data_loader.py [FOLDER]
paretorch train examples/own_data_loader.py --method 'IMTLG()'
"""

import sys
import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.workloads import Accuracy, LoaderStream, MeanAbsoluteError, Metric, MultiTaskModel, Splits, Workload


def to_batch(batch: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return batch[0], {"sign": batch[1], "size": batch[2]}


@dataclass(frozen=True)
class SignAndSize(Workload):
    title, tasks = "the sign and the size of a sum", ("sign", "size")

    def data(self) -> Splits:
        def stream(seed: int, count: int) -> tuple[LoaderStream]:
            x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
            total = x[:, :4].sum(1)
            loader = DataLoader(TensorDataset(x, (total > 0).long(), total.abs()), batch_size=64)
            return (LoaderStream(loader, self.tasks, to_batch=to_batch),)

        return Splits(train=stream(0, 1024), validation=stream(1, 256), test=stream(2, 256))

    def model(self) -> nn.Module:
        encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        return MultiTaskModel(
            encoder, {"sign": nn.Linear(64, 2), "size": nn.Sequential(nn.Linear(64, 1), nn.Flatten(0))}
        )

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        of = {"sign": cross_entropy, "size": mse_loss}
        return {task: of[task](output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        return {"sign": (Accuracy(),), "size": (MeanAbsoluteError(),)}


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    result = train(Run(__file__, method="IMTLG()", epochs=12, batch_size=64), folder)
    ends = {task: [epoch.losses[task] for epoch in result.history[:: len(result.history) - 1]] for task in result.tasks}
    print(", ".join(f"{task} {first:.3f} -> {last:.3f}" for task, (first, last) in ends.items()))


if __name__ == "__main__":
    main()
