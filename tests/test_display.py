"""Progress bars on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from paretorch.display import ProgressBars


def terminal(text: io.StringIO) -> Console:
    return Console(file=text, force_terminal=True, width=100)


def test_progress_bars_show_description_count_and_texts_without_markup() -> None:
    text = io.StringIO()
    bars = ProgressBars("count", "note", console=terminal(text))
    bars.add("a", "left [bold]", total=4, completed=1)
    bars.update("a", completed=3, note="loss [1]")
    bars.print("a line [red]")
    bars.close()
    for part in ("left [bold]", "3/4", "loss [1]", "a line [red]"):
        assert part in text.getvalue()


def test_progress_bars_are_added_advanced_and_removed_by_key() -> None:
    text = io.StringIO()
    bars = ProgressBars("count", console=terminal(text))
    bars.add("a", "first", total=2)
    bars.add("b", "second", total=2)
    bars.advance("b")
    assert (bars.completed("a"), bars.completed("b")) == (0.0, 1.0)
    bars.remove("a")
    assert "a" not in bars
    assert bars.completed("b") == 1.0
    text.truncate(0)
    bars.close()
    assert "second" in text.getvalue()
    assert "first" not in text.getvalue()


def test_importing_the_display_does_not_import_rich() -> None:
    code = "import sys, paretorch.display; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
