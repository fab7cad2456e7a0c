"""For the whole test run: shapes are checked where they are declared, and one thread serves a process."""

import atexit
import os
import shutil
import tempfile

import jaxtyping

# Workload files that tests name are kept here, and not in the configuration of whoever runs them; child processes inherit it.
os.environ["XDG_CONFIG_HOME"] = os.environ["APPDATA"] = tempfile.mkdtemp(prefix="paretorch-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)

# Before the package is first imported. The doors are left out: compiled graphs pass through them, not through checkers.
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

import torch  # noqa: E402

torch.set_num_threads(1)
