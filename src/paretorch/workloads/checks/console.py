"""Console output of checking and packing data."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from paretorch.display import ProgressBars
from paretorch.workloads.formats.coco import COCO
from paretorch.workloads.formats.imagenet import IMAGENET
from paretorch.workloads.packs.writing import PackResult

PAUSE = 10.0  # seconds between two lines without a terminal
LAYOUT = f"""\
imagenet_coco reads, below its root (data/ unless root=... names another folder):

{IMAGENET.layout}
{COCO.layout}

{IMAGENET.origin}.
{COCO.origin}.
`paretorch data check` reports what is there, `paretorch data pack` makes it fast to read."""


class ReadingProgress:
    """A progress bar for each data set on a terminal; a line from time to time otherwise."""

    def __enter__(self) -> ReadingProgress:
        self._bars = ProgressBars("count", "time left") if sys.stdout.isatty() else None
        self._printed = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.close()

    def update(self, title: str, done: int, total: int) -> None:
        """Shows that ``done`` of ``total`` images of a data set are done."""
        if self._bars is not None:
            if title not in self._bars:
                self._bars.add(title, title, total=total)
            self._bars.update(title, completed=done)
        elif done == total or time.monotonic() - self._printed > PAUSE:
            self._printed = time.monotonic()
            print(f"{title}: {done:,} of {total:,} images", flush=True)


def pack_text(packs: Sequence[PackResult], most: int = 20) -> str:
    """The results of packing as text."""
    lines = []
    for pack in packs:
        lines.append(
            f"{pack.folder}: {pack.images:,} images, {pack.added:,} of them new, {pack.bytes / 1e9:.2f} GB in total"
        )
        if pack.unreadable:
            lines.append(f"  {len(pack.unreadable):,} cannot be read and are left out:")
            lines += [f"  {name}: {reason}" for name, reason in list(pack.unreadable.items())[:most]]
            lines += [f"  and {len(pack.unreadable) - most:,} more"] * (len(pack.unreadable) > most)
    return "\n".join(lines)
