"""Sphinx's settings: ``make docs`` builds with warnings as errors."""

import sys
import warnings
from pathlib import Path
from typing import Any

import paretorch

warnings.filterwarnings("ignore", category=FutureWarning)  # autodoc reads former names too
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Paretorch"
author = "the Paretorch contributors"
copyright = author  # noqa: A001
version = release = paretorch.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # MathJax is copied into the pages, so that formulas need no network
    "public_names",
    "method_properties",
    "command_help",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Paretorch {release}"
html_static_path = ["_static", "pictures/package-light.svg", "pictures/package-dark.svg"]
html_css_files = ["paretorch.css"]
html_js_files = ["scrolling.js"]

copybutton_prompt_text = r">>> |\.\.\. |\$ "  # copied are the lines after prompts, without prompts and output
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

autodoc_mock_imports = ["lightning", "transformers"]  # the adapters' entries need no framework
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = (
    "none"  # the signatures of methods are their hyperparameters; types are in the code, shapes in the text
)
napoleon_numpy_docstring = False
napoleon_use_rtype = False

nitpick_ignore_regex = [
    (r"py:.*", r"torch\..*|nn\..*|numpy\..*"),  # their indexes would have to be fetched from the network
]


def with_pictures(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Finds the pictures of CONTRIBUTING.md, whose paths are relative to the repository."""
    if pagename == "contributing":
        context["body"] = context["body"].replace('="docs/pictures/', '="_static/')


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", with_pictures)
