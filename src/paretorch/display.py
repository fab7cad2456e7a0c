"""Progress bars on a terminal."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from paretorch.extras import extra

if TYPE_CHECKING:
    from rich.console import Console


FIRST = "first"  # the field of a bar with what was completed when it was added


def seconds_left(elapsed: float, first: float, completed: float, total: float) -> float | None:
    """The seconds until ``total`` at the mean speed since ``first``; None before the first step.

    Args:
        elapsed: seconds since the start, pauses included.
        first: what was completed at the start.
        completed: what is completed now.
        total: of which.

    Example:
        >>> seconds_left(30.0, first=10, completed=25, total=100)
        150.0
    """
    return elapsed * (total - completed) / (completed - first) if completed > first else None


class ProgressBars:
    """Progress bars by key, drawn by rich. Descriptions and texts are plain text, not markup.

    rich is imported when the first object is made, not with this module.

    Args:
        columns: what follows the description and the bar: ``"count"`` (3/10), ``"time left"``, or the name of a text that
            :meth:`update` sets.
        width: of a bar, in characters; None: all bars share the width of the terminal.
        console: where the bars are drawn; None: the standard output.
        transient: whether :meth:`close` removes the bars from the terminal.

    Example:
        >>> from rich.console import Console
        >>> bars = ProgressBars("count", console=Console(emoji=False, quiet=True))
        >>> bars.add("left", "images of the left", total=3)
        >>> bars.update("left", completed=2)
        >>> bars.completed("left")
        2.0
        >>> bars.close()
    """

    def __init__(
        self, *columns: str, width: int | None = 40, console: Console | None = None, transient: bool = False
    ) -> None:
        with extra("studies"):
            from rich import progress
            from rich.text import Text

        class TimeLeft(progress.ProgressColumn):
            """The time left at the mean speed since the bar was added: pauses, such as evaluations, count."""

            max_refresh = 0.5

            def render(self, task: progress.Task) -> Text:
                left = seconds_left(task.elapsed or 0.0, task.fields[FIRST], task.completed, task.total or 0.0)
                return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))))

        known: dict[str, list[progress.ProgressColumn]] = {
            "count": [progress.MofNCompleteColumn()],
            "time left": [progress.TextColumn("left"), TimeLeft()],
        }
        shown: list[progress.ProgressColumn] = [
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=width),
        ]
        self._texts = tuple(column for column in columns if column not in known)
        for column in columns:
            shown += known.get(column, [progress.TextColumn(f"{{task.fields[{column}]}}", markup=False)])
        self._bars = progress.Progress(*shown, console=console, transient=transient)
        self._tasks: dict[Hashable, progress.TaskID] = {}
        self._bars.start()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def add(self, key: Hashable, description: str, total: float, completed: float = 0, **texts: str) -> None:
        """Adds a bar below the others."""
        fields: dict[str, Any] = dict.fromkeys(self._texts, "") | texts | {FIRST: completed}
        self._tasks[key] = self._bars.add_task(description, total=total, completed=int(completed), **fields)

    def advance(self, key: Hashable) -> None:
        """Moves a bar by one."""
        self._bars.advance(self._tasks[key])

    def update(self, key: Hashable, **changes: Any) -> None:
        """Changes ``description``, ``total``, ``completed`` or the texts of a bar."""
        self._bars.update(self._tasks[key], **changes)

    def remove(self, key: Hashable) -> None:
        """Removes a bar."""
        self._bars.remove_task(self._tasks.pop(key))

    def completed(self, key: Hashable) -> float:
        """How far a bar is."""
        return float(self._bars.tasks[self._bars.task_ids.index(self._tasks[key])].completed)

    def print(self, text: str) -> None:
        """Prints a line of plain text above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Restores the terminal."""
        self._bars.stop()
