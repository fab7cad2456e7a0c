"""Calls of every command, small; ``python repeated_commands.py FOLDER SETTING NAME...`` makes some of them.

They are made in the given order in one process, each in a folder of its own, with a clock that misleads.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TINY = str(HERE / "training_workload.py")
SHORT = ("--epochs", "2", "--batch-size", "20")
LONGER = ("--epochs", "12", "--batch-size", "20")
OUT = ("--out", "out")
STUDY = ("study", TINY, "--methods", "sum, UPGrad()", "--seeds", "2", *SHORT)
SYNTHETIC = "synthetic(samples=64, hidden=8)"
FRONT = ("front", SYNTHETIC, "--models", "3", "--epochs", "2", "--batch-size", "32")

# Calls of a command line, in order, by name; those before the last prepare its input.
CALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (("train", TINY, "--method", "UPGrad()", "--surface", "parameters", *SHORT, *OUT),),
    "train, losses alone": (("train", TINY, "--method", "RLW()", *SHORT, *OUT),),
    "train, an optimizer of tasks": (("train", TINY, "--optimizer", "MTAdamV2()", *SHORT, *OUT),),
    "train, a line search": (("train", TINY, "--optimizer", "FastBacktracking()", *SHORT, *OUT),),
    "interactive": (
        ("interactive", "--images", "8", "--batch-size", "4", "--epochs", "1", "--optimizer", "1", "--yes", *OUT),
    ),
    "study": ((*STUDY, *OUT),),
    "study, tuned": ((*STUDY, "--tune", "2", *OUT),),
    "study, searches": ((*STUDY, "--searches", "random, population, grid", "--trials", "4", *OUT),),
    "weights": (("weights", TINY, *LONGER, *OUT),),
    "weights, population": (
        ("weights", TINY, "--search", "population", "--members", "4", "--rounds", "2", *LONGER, *OUT),
    ),
    "diagnose": (("diagnose", TINY, "--batches", "4", "--batch-size", "10", "--warmup", "20", *OUT),),
    "front": ((*FRONT, *OUT),),
    "front, a conditional model": ((*FRONT, "--algorithm", "phnls(hidden=8)", *OUT),),
    "front, evolution": (
        ("front", "synthetic(problem='zdt1', size=4)", "--algorithm", "nsga2", "--epochs", "4", *OUT),
    ),
    "pick": ((*FRONT, *OUT), ("pick", "out", "0.7,0.3", "--export", "picked.safetensors")),
    "export": (("train", TINY, *SHORT, *OUT), ("export", "out", "model.safetensors")),
    "export, onnx": (("train", TINY, *SHORT, *OUT), ("export", "out", "model.onnx")),
    "report": (("report", "../given", *OUT),),
    "list": (("list", "methods"),),
    "data list": (("data", "list"),),
    "data check": (("data", "check", "../images"),),
    "data pack": (("data", "pack", "../images", "--size", "32", "--out", "packed"),),
}


def commands() -> Iterator[str]:
    """The names of all commands, of groups too."""
    import typer

    from paretorch.cli import app

    def names(command: Any, prefix: tuple[str, ...]) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield " ".join(prefix)
            return
        for name, inner in command.commands.items():
            yield from names(inner, (*prefix, name))

    yield from names(typer.main.get_command(app), ())


class MisleadingClock:
    """A clock whose steps are drawn, up to 100 seconds from one reading to the next."""

    def __init__(self, seed: int) -> None:
        self.now, self.draws = 0.0, random.Random(seed)

    def __call__(self) -> float:
        self.now += self.draws.choice((1e-6, 1e-3, 1.0, 100.0))
        return self.now


@dataclass(frozen=True)
class Setting:
    """What differs between two processes that make the same calls.

    Args:
        seed: of the clock.
        threads: of torch.
        workload: in place of the workload of the tests; empty: none.
        more: arguments that are added to a command, by its first word.
    """

    seed: int
    threads: int = 1
    workload: str = ""
    more: dict[str, list[str]] = field(default_factory=dict)


def main(folder: Path, setting: Setting, names: list[str]) -> None:
    """Makes the calls of ``names``; the text that the last of each prints is in ``printed.txt``."""
    time.perf_counter = MisleadingClock(setting.seed)
    sys.path.insert(0, str(HERE))
    import torch

    from command_line import call

    torch.set_num_threads(setting.threads)
    for name in names:
        own = folder / name
        own.mkdir()
        os.chdir(own)
        for arguments in CALLS[name]:
            given = [setting.workload if word == TINY and setting.workload else word for word in arguments]
            code, printed = call(*given, *setting.more.get(arguments[0], []))
            assert code == 0, (name, arguments, printed)
        (own / "printed.txt").write_text(printed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Setting(**json.loads(sys.argv[2])), sys.argv[3:])
