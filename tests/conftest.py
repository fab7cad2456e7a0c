"""For the whole test run: shapes are checked where they are declared, one thread serves a process, and none has a network."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import jaxtyping

# Workload files that tests name are kept here, and not in the configuration of whoever runs them; child processes inherit it.
os.environ["XDG_CONFIG_HOME"] = os.environ["APPDATA"] = tempfile.mkdtemp(prefix="paretorch-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)

# Before the package is first imported. Fork and Balancer are excluded: a compiled graph contains their code, but no checks.
jaxtyping.install_import_hook(
    [
        "paretorch.balance",
        "paretorch.core.solvers.bargaining",
        "paretorch.core.solvers.conflict_averse",
        "paretorch.core.contract",
        "paretorch.core.solvers.nonnegative",
        "paretorch.core.solvers.minimum_norm",
        "paretorch.core.method.weights",
    ],
    "beartype.beartype",
)

import pytest  # noqa: E402
import torch  # noqa: E402

from no_network import refuse_network  # noqa: E402

refuse_network()
torch.set_num_threads(1)


@pytest.fixture
def tests_on_worker_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the workers of a study import the modules of this folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
