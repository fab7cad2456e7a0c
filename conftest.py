"""Modules whose packages are not installed are not collected."""

from importlib.util import find_spec

FRAMEWORKS = {
    "accelerate": ("tests/accelerate_loops.py",),
    "lightning": ("src/paretorch/integrations/lightning.py", "tests/lightning_loops.py"),
    "transformers": ("src/paretorch/integrations/transformers.py", "tests/trainer_loops.py"),
}
collect_ignore = [file for name, files in FRAMEWORKS.items() if find_spec(name) is None for file in files]
