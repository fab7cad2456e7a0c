"""A study of learning rates and methods on a Ray cluster, and its report.

python examples/ray_sweep.py [FOLDER]          # a cluster on this machine; RAY_ADDRESS names a running one
"""

import json
import sys
import tempfile
from pathlib import Path

import paretorch as pt
from paretorch.studies.study import Study, Treatment, best_of_grid
from paretorch.training.run import Run


def study(scale: str) -> Study:
    def runs(method: str) -> list[Run]:
        return [
            Run("digits", {"train": 1024, "test": 256}, method=method, optimizer_options={"lr": rate}, epochs=6)
            for rate in (3e-3, 1e-2)
        ]

    return Study(
        name="sweep",
        question="Does a method help on few digits?",
        treatments=(
            Treatment("sum", (runs("Equal()")[0],)),
            *(best_of_grid(method, runs(f"{method}()")) for method in ("IMTLG", "CAGrad")),
        ),
        reference="sum",
        baseline="sum",
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "sweep"
    found = pt.run_study(__file__, seeds=3, out=folder, jobs=2, launch="ray")
    assert found.page.exists()  # tables, intervals, figures
    history = json.loads(next(folder.glob("*/result.json")).read_text())["history"]
    first, last = history[0]["losses"], history[-1]["losses"]
    print(", ".join(f"{task} {first[task]:.3f} -> {last[task]:.3f}" for task in first))


if __name__ == "__main__":
    main()
