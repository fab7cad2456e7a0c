"""Progress bars on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from paretorch.display import ProgressBars, seconds_left


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


def test_time_left_of_a_bar_counts_pauses_and_what_was_completed_before() -> None:
    for evaluation in (0.0, 15.0):  # seconds after each epoch of ten steps of one second
        total, first, elapsed = 200, 50, 0.0
        whole = (total - first) + evaluation * (total - first) / 10
        for step in range(first + 1, total):
            elapsed += 1 + evaluation * ((step - 1) % 10 == 0 and step > first + 1)
            left = seconds_left(elapsed, first, step, total)
            assert left is not None
            if 0.1 < elapsed / whole < 0.94:  # the last evaluation has no step after it
                assert 0.5 < left / (whole - elapsed) < 2
    assert seconds_left(3.0, 5, 5, 10) is None


def test_progress_bars_show_the_time_left() -> None:
    text = io.StringIO()
    bars = ProgressBars("time left", console=terminal(text))
    bars.add("a", "first", total=2, completed=1)
    assert bars._bars.tasks[0].fields["first"] == 1
    bars.close()
    assert "left -:--:--" in " ".join(text.getvalue().split())


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
