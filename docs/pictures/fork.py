"""Draws what the Fork does, for light and for dark pages: ``python docs/pictures/fork.py`` writes both files into its folder.

The vectors in the picture are true: their weights are those of MGDA at the default scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WIDTH, TOP, HEIGHT = 960, 40, 408
SANS = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
MATHS = "'STIX Two Text', 'Cambria', 'Latin Modern Roman', Georgia, 'Times New Roman', serif"

Point = tuple[float, float]

GRADIENTS: dict[str, Point] = {"seg": (78.0, -18.0), "depth": (-34.0, -50.0)}


@dataclass(frozen=True)
class Theme:
    """Colours of a page. Lines differ in their dashes as well, so that the picture reads in black and white."""

    ink: str
    muted: str
    panel: str
    box: str
    accent: str
    seg: str
    depth: str


THEMES = {
    "light": Theme("#1f2933", "#5b6774", "#f3f5f7", "#ffffff", "#1f2933", "#b4490f", "#1f5fa8"),
    "dark": Theme("#e6eaee", "#a3afba", "#20272e", "#161b20", "#e6eaee", "#f29b5f", "#7fb5f0"),
}
DASHES = {"seg": "9 4", "depth": "2.5 3.5"}


def mgda_weights() -> dict[str, float]:
    """Weights of the shortest convex combination of the two gradients, times two: then equal gradients add up."""
    (ax, ay), (bx, by) = GRADIENTS["seg"], GRADIENTS["depth"]
    dx, dy = bx - ax, by - ay
    share = min(max((dx * bx + dy * by) / (dx * dx + dy * dy), 0.0), 1.0)
    return {"seg": 2 * share, "depth": 2 * (1 - share)}


def picture(theme: Theme) -> str:
    """The picture as SVG."""
    parts = [*heads_and_losses(theme), *encoder_and_fork(theme), *inside(theme), *legend(theme)]
    title = "Forward, the Fork hands the features z to every head; backward, it sends one combined gradient into the encoder."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {TOP} {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-label="{title}" font-family="{SANS}" font-size="15">',
            f"<title>{title}</title>",
            *parts,
            "</svg>",
            "",
        ]
    )


# --- the network ---------------------------------------------------------------------------------------------------------


def encoder_and_fork(theme: Theme) -> list[str]:
    """From the input to the features, the Fork, and the one gradient that comes back."""
    return [
        box(theme, 18, 128, 44, 44, radius=6),
        maths(theme, 40, 156, "x"),
        arrow(theme.ink, (66, 150), (100, 150)),
        f'<path d="M104 84 L226 112 L226 188 L104 216 Z" fill="{theme.box}" stroke="{theme.ink}" stroke-width="1.6" '
        'stroke-linejoin="round"/>',
        text(theme, 165, 155, "encoder"),
        arrow(theme.ink, (230, 136), (398, 136)),
        maths(theme, 314, 125, "z"),
        arrow(theme.ink, (398, 166), (234, 166), width=5.0),
        text(theme, 314, 193, "one gradient", weight="600"),
        maths(theme, 314, 215, f"∑{sub('t')} w{sub('t')} ∂L{sub('t')}/∂z", size=18),
        f'<rect x="402" y="104" width="92" height="92" rx="12" fill="{theme.accent}"/>',
        text(theme, 448, 156, "Fork", size=19, weight="700", fill=theme.box),
    ]


def heads_and_losses(theme: Theme) -> list[str]:
    """A head and a loss for each task, and their plain sum."""
    parts = []
    for task, middle, loss in (("seg", 78.0, "seg"), ("depth", 222.0, "depth")):
        colour, dashes = getattr(theme, task), DASHES[task]
        near = 128.0 if task == "seg" else 172.0
        shift = -7.0 if task == "seg" else 7.0
        parts += [
            arrow(theme.ink, (498, near + shift), (618, middle + shift)),
            arrow(colour, (618, middle - shift), (499, near - shift), width=2.4, dashes=dashes),
            maths(theme, 551, 82 if task == "seg" else 229, "z"),
            maths(theme, 594, 134 if task == "seg" else 173, f"∂L{sub(loss)}/∂z", fill=colour, size=16),
            box(theme, 622, middle - 25, 112, 50),
            text(theme, 678, middle + 5, f"{task} head"),
            arrow(theme.ink, (738, middle - 6), (783, middle - 6)),
            arrow(colour, (783, middle + 8), (738, middle + 8), width=2.4, dashes=dashes),
            f'<circle cx="812" cy="{middle}" r="27" fill="{theme.box}" stroke="{theme.ink}" stroke-width="1.6"/>',
            maths(theme, 812, middle + 5, f"L{sub(loss)}", size=17),
            arrow(
                theme.ink, (837, middle + (14 if task == "seg" else -14)), (887, 150 + (-14 if task == "seg" else 14))
            ),
        ]
    return [
        *parts,
        f'<circle cx="906" cy="150" r="21" fill="{theme.box}" stroke="{theme.ink}" stroke-width="1.6"/>',
        maths(theme, 906, 157, "∑", size=21, style="normal"),
        text(theme, 828, 155, ".backward()", size=14, family="ui-monospace, Menlo, Consolas, monospace"),
    ]


# --- what happens inside the Fork ----------------------------------------------------------------------------------------


def inside(theme: Theme) -> list[str]:
    """The panel below: gradients, Gramian, method, weights, combination."""
    return [
        f'<path d="M448 200 L448 268" stroke="{theme.muted}" stroke-width="1.4" stroke-dasharray="3 4"/>',
        f'<rect x="18" y="268" width="924" height="138" rx="12" fill="{theme.panel}"/>',
        text(theme, 36, 292, "inside, during backward", size=14, fill=theme.muted, anchor="start"),
        *gradients(theme, (132.0, 384.0)),
        arrow(theme.muted, (252, 345), (296, 345)),
        *gramian(theme, 316.0, 318.0),
        arrow(theme.muted, (402, 345), (446, 345)),
        box(theme, 452, 316, 150, 58),
        text(theme, 527, 340, "method", weight="600"),
        text(theme, 527, 361, "MGDA, UPGrad, …", size=14, fill=theme.muted),
        arrow(theme.muted, (608, 345), (652, 345)),
        *weights(theme, 664.0),
        arrow(theme.muted, (760, 345), (804, 345)),
        *combination(theme, (856.0, 384.0)),
    ]


def gradients(theme: Theme, origin: Point) -> list[str]:
    """The tasks' gradients on the features, which conflict."""
    parts = []
    for task, (x, y) in GRADIENTS.items():
        colour = getattr(theme, task)
        parts.append(arrow(colour, origin, (origin[0] + x, origin[1] + y), width=2.6, dashes=DASHES[task]))
    return [
        *parts,
        maths(theme, origin[0] + 99, origin[1] - 24, f"g{sub('seg')}", fill=theme.seg, size=17),
        maths(theme, origin[0] - 62, origin[1] - 48, f"g{sub('depth')}", fill=theme.depth, size=17),
    ]


def gramian(theme: Theme, left: float, top: float) -> list[str]:
    """A T by T grid of inner products."""
    cells = [
        f'<rect x="{left + 33 * column}" y="{top + 27 * row}" width="33" height="27" fill="{theme.box}" stroke="{theme.ink}" '
        'stroke-width="1.2"/>'
        for row in range(2)
        for column in range(2)
    ]
    signs = [
        maths(theme, left + 16.5 + 33 * column, top + 19 + 27 * row, "+" if row == column else "−", style="normal")
        for row in range(2)
        for column in range(2)
    ]
    label = maths(theme, left + 33, top + 75, f"G{sub('st')} = ⟨g{sub('s')}, g{sub('t')}⟩", size=17)
    return [*cells, *signs, label]


def weights(theme: Theme, left: float) -> list[str]:
    """The weights, in figures."""
    found = mgda_weights()
    return [
        maths(theme, left, 338, f"w{sub('seg')} = {found['seg']:.2f}", fill=theme.seg, size=17, anchor="start"),
        maths(theme, left, 365, f"w{sub('depth')} = {found['depth']:.2f}", fill=theme.depth, size=17, anchor="start"),
    ]


def combination(theme: Theme, origin: Point) -> list[str]:
    """The gradients again, thin, and their weighted sum."""
    found = mgda_weights()
    total = tuple(sum(found[task] * GRADIENTS[task][axis] for task in GRADIENTS) for axis in range(2))
    thin = [
        arrow(getattr(theme, task), origin, (origin[0] + 0.8 * x, origin[1] + 0.8 * y), width=1.4, dashes=DASHES[task])
        for task, (x, y) in GRADIENTS.items()
    ]
    return [*thin, arrow(theme.ink, origin, (origin[0] + total[0], origin[1] + total[1]), width=5.0)]


def legend(theme: Theme) -> list[str]:
    """What the lines mean."""
    y = 432.0
    return [
        arrow(theme.ink, (60, y), (106, y)),
        text(theme, 116, y + 5, "forward", size=14, anchor="start", fill=theme.muted),
        arrow(theme.seg, (268, y), (220, y), width=2.4, dashes=DASHES["seg"]),
        arrow(theme.depth, (328, y), (280, y), width=2.4, dashes=DASHES["depth"]),
        text(theme, 338, y + 5, "backward: a task's own gradient", size=14, anchor="start", fill=theme.muted),
        arrow(theme.ink, (660, y), (612, y), width=5.0),
        text(theme, 672, y + 5, "backward: one gradient for all tasks", size=14, anchor="start", fill=theme.muted),
    ]


# --- strokes -------------------------------------------------------------------------------------------------------------


def arrow(colour: str, start: Point, end: Point, width: float = 1.8, dashes: str = "") -> str:
    """A straight arrow whose head ends at ``end``."""
    (x0, y0), (x1, y1) = start, end
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    long, half = 6.0 + 1.9 * width, 2.6 + 1.0 * width
    bx, by = x1 - ux * long, y1 - uy * long
    tips = f"{x1:.1f},{y1:.1f} {bx - uy * half:.1f},{by + ux * half:.1f} {bx + uy * half:.1f},{by - ux * half:.1f}"
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    shaft = f"M{x0:.1f} {y0:.1f} L{bx + ux:.1f} {by + uy:.1f}"
    return (
        f'<path d="{shaft}" stroke="{colour}" stroke-width="{width}" fill="none"{dashed}/>'
        f'<polygon points="{tips}" fill="{colour}"/>'
    )


def box(theme: Theme, x: float, y: float, width: float, height: float, radius: float = 8) -> str:
    """A rounded box."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{theme.box}" stroke="{theme.ink}" '
        'stroke-width="1.6"/>'
    )


def text(
    theme: Theme, x: float, y: float, words: str, size: float = 15, weight: str = "400", fill: str = "",
    anchor: str = "middle", family: str = "",
) -> str:  # fmt: skip
    """A line of words."""
    face = f' font-family="{family}"' if family else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill or theme.ink}"{face}>{words}</text>'
    )


def maths(
    theme: Theme, x: float, y: float, formula: str, size: float = 19, fill: str = "",
    anchor: str = "middle", style: str = "italic",
) -> str:  # fmt: skip
    """A formula, in italics."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-style="{style}" font-family="{MATHS}" text-anchor="{anchor}" '
        f'fill="{fill or theme.ink}">{formula}</text>'
    )


def sub(word: str) -> str:
    """A subscript, and back to the line."""
    return f'<tspan dy="4" font-size="0.72em">{word}</tspan><tspan dy="-4">&#8203;</tspan>'


def main() -> None:
    """Write both pictures."""
    for name, theme in THEMES.items():
        (Path(__file__).parent / f"fork-{name}.svg").write_text(picture(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
