"""Training of one run: plain values in, a result and its files out.

In: a :class:`Run`, which names a workload, a method or front algorithm, an optimizer and their options, and a folder. Out: a
:class:`Result`, and in the folder the run, its events, checkpoints and result, from which
:func:`load_model` loads the model. It must not import studies, reports or commands.
"""

from paretorch.training.finished_model import load_model
from paretorch.training.loop import train
from paretorch.training.record.result import Epoch, Result, Scores
from paretorch.training.run import Run

__all__ = ["Epoch", "Result", "Run", "Scores", "load_model", "train"]
