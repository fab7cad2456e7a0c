"""Draws the map of the package from its imports, for light and for dark pages: ``python docs/pictures/package.py``.

A box is a folder of ``src/paretorch`` with the folders within it. An arrow leads from a folder to one that it imports.
Arrows that follow from others are left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from package_imports import SOURCE, imports  # noqa: E402

WIDTH, MARGIN, GAP = 960.0, 16.0, 22.0
LINE, HEAD, ROW = 17.0, 30.0, 46.0  # heights: of a line of text, of a box's title, of the space between floors
SANS = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, Menlo, Consolas, monospace"

FLOORS = (
    ("cli",),
    ("reports",),
    ("studies", "diagnosis"),
    ("training",),
    ("balance", "linesearch", "optim", "pareto", "integrations"),
    ("core", "loop"),
    ("", "workloads"),
    ("metrics", "storage"),  # below workloads
)
PACKAGES = {
    "cli": "the command line",
    "reports": "finished runs to tables, figures, pages",
    "studies": "treatments, seeds, statistics, tuning",
    "diagnosis": "scales, conflicts, noise; advice",
    "training": "one run: names to parts, loop, record",
    "balance": "methods",
    "linesearch": "step sizes",
    "optim": "optimizers per task",
    "pareto": "sets of models",
    "integrations": "adapters for trainers",
    "core": "Fork, Balancer, solvers",
    "workloads": "data, models, losses",
    "loop": "epochs, evaluation of a split",
    "metrics": "of tasks; Δm, mean rank",
    "storage": "files, locks, JSON, checkpoints",
}


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    ink: str
    muted: str
    box: str
    edge: str


THEMES = {
    "light": Theme("#1f2933", "#5b6774", "#ffffff", "#8793a0"),
    "dark": Theme("#e6eaee", "#a3afba", "#161b20", "#6b7782"),
}


@dataclass(frozen=True)
class Box:
    """A package on the page."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Of its horizontal extent."""
        return self.x + self.width / 2


def folders() -> dict[str, list[str]]:
    """The folders within each package that have Python files."""
    return {
        package: sorted(file.parent.name for file in (SOURCE / "paretorch" / package).glob("*/__init__.py"))
        for package in PACKAGES
    }


def arrows() -> set[tuple[str, str]]:
    """(importer, imported) packages, without the pairs that follow from others."""
    pairs = set()
    for one in imports():
        names = one.importer.split("."), one.module.split(".")
        if names[1][0] == "paretorch" and all(len(name) > 1 and name[1] in PACKAGES for name in names):
            pairs.add((names[0][1], names[1][1]))
    direct = {pair for pair in pairs if pair[0] != pair[1]}
    reach = {package: _reached(package, direct) for package in PACKAGES}
    return {
        (one, other)
        for one, other in direct
        if not any(other in reach[third] for first, third in direct if first == one and third != other)
    }


def _reached(package: str, pairs: set[tuple[str, str]]) -> set[str]:
    """Rooms below ``package``."""
    below = {other for one, other in pairs if one == package}
    return below.union(*(_reached(other, pairs) for other in below))


def lines(names: list[str], width: float) -> list[str]:
    """Names, separated by spaces, in lines that fit into ``width``."""
    found: list[str] = []
    for name in names:
        if found and len(found[-1]) + 3 + len(name) <= (width - 24) / 7.9:
            found[-1] += f" · {name}"
        else:
            found.append(name)
    return found


def placed() -> dict[str, Box]:
    """Where each package is drawn: floors from top to bottom, packages of a floor side by side."""
    inner, found, y = folders(), {}, MARGIN
    for floor in FLOORS:
        full = WIDTH - 2 * MARGIN if len(floor) > 1 else 420.0
        width = (full - GAP * (len(floor) - 1)) / len(floor)
        height = max(HEAD + 8 + LINE * (1 + len(lines(inner[package], width))) for package in floor if package)
        left = (WIDTH - full) / 2
        for place, package in enumerate(floor):
            if package:
                found[package] = Box(left + place * (width + GAP), y, width, height)
        y += height + ROW
    return found


def picture(theme: Theme) -> str:
    """The map as SVG."""
    boxes, inner = placed(), folders()
    height = max(box.y + box.height for box in boxes.values()) + MARGIN
    title = "The packages of Paretorch from the command line down to storage; arrows lead from importer to imported."
    parts = [arrow(theme, boxes[one], boxes[other], boxes) for one, other in sorted(arrows())]
    for package, box in boxes.items():
        parts.append(
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="8" '
            f'fill="{theme.box}" stroke="{theme.ink}" stroke-width="1.4"/>'
        )
        parts.append(text(theme.ink, box.x + 12, box.y + 22, package, size=16, weight="700"))
        parts.append(text(theme.muted, box.x + 12, box.y + 22 + LINE, PACKAGES[package], size=13))
        for place, line in enumerate(lines(inner[package], box.width)):
            parts.append(text(theme.ink, box.x + 12, box.y + 24 + LINE * (2 + place), line, size=13, family=MONO))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" '
            f'height="{height:.0f}" role="img" aria-label="{title}" font-family="{SANS}" xml:space="preserve">',
            f"<title>{title}</title>",
            *parts,
            "</svg>",
            "",
        ]
    )


def arrow(theme: Theme, start: Box, end: Box, boxes: dict[str, Box]) -> str:
    """From the lower edge of a box to the upper edge of one below it, around the boxes between them."""
    between = [box for box in boxes.values() if start.y + start.height < box.y and box.y + box.height < end.y]
    x0 = start.x + start.width * min(max((end.middle - start.x) / start.width, 0.12), 0.88)
    x1 = end.x + end.width * min(max((start.middle - end.x) / end.width, 0.12), 0.88)
    y0, y1 = start.y + start.height, end.y
    bend = ""
    if between:  # the path passes to the side of what is between
        side = min((box.x for box in between), default=x0) - GAP / 2
        x0, x1 = max(side, start.x + 14), max(side, end.x + 14)
        bend = f"L{side:.1f} {y0 + ROW / 2:.1f} L{side:.1f} {y1 - ROW / 2:.1f} "
    tip = f"{x1:.1f},{y1:.1f} {x1 - 4.5:.1f},{y1 - 9:.1f} {x1 + 4.5:.1f},{y1 - 9:.1f}"
    return (
        f'<path d="M{x0:.1f} {y0:.1f} {bend}L{x1:.1f} {y1 - 8:.1f}" fill="none" stroke="{theme.edge}" stroke-width="1.6"/>'
        f'<polygon points="{tip}" fill="{theme.edge}"/>'
    )


def text(fill: str, x: float, y: float, words: str, size: float, weight: str = "400", family: str = "") -> str:
    """A line of words."""
    face = f' font-family="{family}"' if family else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}"{face}>{words}</text>'


def main() -> None:
    """Write both pictures."""
    for name, theme in THEMES.items():
        (Path(__file__).parent / f"package-{name}.svg").write_text(picture(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
