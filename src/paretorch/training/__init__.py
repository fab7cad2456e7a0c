"""Training: a run as plain values, the parts it names, the one loop, and its record on disk."""

from paretorch.training.loop import train
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.run import Run

__all__ = ["Epoch", "Result", "Run", "Scores", "train"]
