"""How checking and packing data look on a console."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from paretorch.extras import extra
from paretorch.workloads.checks.checkup import Checkup
from paretorch.workloads.formats.layout import COCO, COCO_SOURCE, IMAGENET, IMAGENET_SOURCE
from paretorch.workloads.packs.writing import Packed

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PAUSE = 10.0  # seconds between two lines where there is no terminal
LAYOUT = f"""\
imagenet_coco reads, below its root (data/ unless root=... says otherwise):

{IMAGENET}
{COCO}

{IMAGENET_SOURCE}.
{COCO_SOURCE}.
`paretorch data check` says what is there, `paretorch data pack` makes it fast to read."""


class Following:
    """A bar for each thing that is read, on a terminal; now and then a line elsewhere."""

    def __enter__(self) -> Following:
        self.bars: Progress | None = None
        self.known: dict[str, TaskID] = {}
        self.said = time.monotonic()
        if sys.stdout.isatty():
            with extra("studies"):
                from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
            self.bars = Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        """So many images of ``what`` are done."""
        if self.bars is not None:
            if what not in self.known:
                self.known[what] = self.bars.add_task(what, total=total)
            self.bars.update(self.known[what], completed=done)
        elif done == total or time.monotonic() - self.said > PAUSE:
            self.said = time.monotonic()
            print(f"{what}: {done:,} of {total:,} images", flush=True)


def checked(reports: Sequence[Checkup]) -> str:
    """The text of a check."""
    parts = []
    for report in reports:
        lines = [report.title, *(f"  {line}" for line in report.found)]
        lines += [f"  PROBLEM: {problem}" for problem in report.problems]
        parts.append("\n".join([*lines, *["  all is well"] * (not report.problems)]))
    return "\n\n".join(parts)


def packed(packs: Sequence[Packed], most: int = 20) -> str:
    """The text of a packing."""
    lines = []
    for pack in packs:
        lines.append(
            f"{pack.folder}: {pack.images:,} images, {pack.added:,} of them new, {pack.bytes / 1e9:.2f} GB in all"
        )
        if pack.unreadable:
            lines.append(f"  {len(pack.unreadable):,} cannot be read and are left out:")
            lines += [f"  {name}: {reason}" for name, reason in list(pack.unreadable.items())[:most]]
            lines += [f"  and {len(pack.unreadable) - most:,} more"] * (len(pack.unreadable) > most)
    return "\n".join(lines)
