"""Commands in the process of the tests."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from paretorch.cli import app


def call(*arguments: str, answers: str | None = None) -> tuple[int, str]:
    """Runs a command; returns its exit code and its output on both streams, without colours and line breaks.

    Args:
        arguments: the arguments of the command.
        answers: the standard input.
    """
    result = CliRunner().invoke(
        app, list(arguments), input=answers, env={"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)
