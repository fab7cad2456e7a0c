"""Embedded parts of a page: template, style, scripts, plotly, and data."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from paretorch.extras import extra

with extra("studies"):
    import jinja2
    from markupsafe import Markup


def template(name: str) -> jinja2.Template:
    """The template of this name, which escapes every text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(asset(name))


def asset(name: str) -> str:
    """A file of the package's assets."""
    return resources.files("paretorch.reports").joinpath("assets", name).read_text(encoding="utf-8")


def plotly() -> str:
    """The script of the installed plotly."""
    with extra("studies"):
        from plotly.offline import get_plotlyjs
    return str(get_plotlyjs())


def content_policy(*scripts: str) -> str:
    """The content security policy of a page: only these scripts run, and nothing is loaded from a network.

    Args:
        scripts: the texts of the page's script elements.

    Example:
        >>> content_policy("draw()").split("; ")[:2]
        ["default-src 'none'", "script-src 'sha256-jm3FkV4tNIdBUr8jRVVl5n9PUixlaxTWD0pdpFiSH5A='"]
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def script_data(values: Any) -> Markup:
    r"""Plain values as JSON that no text in it can end, for a script element.

    Raises:
        ValueError: a number is not finite.

    Example:
        >>> script_data({"name": "</script>"})
        Markup('{"name":"\\u003c/script\\u003e"}')
    """
    text = json.dumps(values, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
