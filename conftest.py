"""Modules whose packages are not installed are not collected."""

from importlib.util import find_spec

FRAMEWORKS = ("lightning", "transformers")
collect_ignore = [f"src/paretorch/integrations/{name}.py" for name in FRAMEWORKS if find_spec(name) is None]
