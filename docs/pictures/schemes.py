"""Draws the schemes of the documentation, for light and for dark pages: ``python docs/pictures/schemes.py``.

A scheme is a function from a theme to the strokes of a picture of 640 units in width, so that its text is legible on a screen of
400 pixels. Strokes are those of ``fork.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fork import DASHES, SANS, THEMES, Point, Theme, arrow, box, maths, sub, text  # noqa: E402

WIDTH = 640
MONO = "ui-monospace, Menlo, Consolas, monospace"


@dataclass(frozen=True)
class Scheme:
    """A picture.

    Args:
        title: what it shows, in one sentence; its text for screen readers.
        height: in the units of ``WIDTH``.
        strokes: theme -> elements of SVG.
    """

    title: str
    height: int
    strokes: Callable[[Theme], list[str]]


def drawn(scheme: Scheme, theme: Theme) -> str:
    """The picture as SVG."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {scheme.height}" width="{WIDTH}" '
            f'height="{scheme.height}" role="img" aria-label="{scheme.title}" font-family="{SANS}" font-size="16">',
            f"<title>{scheme.title}</title>",
            *scheme.strokes(theme),
            "</svg>",
            "",
        ]
    )


# --- parts ---------------------------------------------------------------------------------------------------------------


def named(theme: Theme, x: float, y: float, width: float, height: float, *lines: str, size: float = 16) -> list[str]:
    """A box with lines of text; the first is bold if there are several."""
    first = y + height / 2 + 6 - 10.5 * (len(lines) - 1)
    parts = [box(theme, x, y, width, height)]
    for place, line in enumerate(lines):
        bold = len(lines) > 1 and place == 0
        parts.append(
            text(
                theme, x + width / 2, first + 21 * place, line, size=size if place == 0 else size - 2,
                weight="600" if bold else "400", fill="" if place == 0 else theme.muted,
            )
        )  # fmt: skip
    return parts


def label(theme: Theme, x: float, y: float, words: str, anchor: str = "start", size: float = 15, fill: str = "") -> str:
    """A line of words in a quieter colour."""
    return text(theme, x, y, words, size=size, anchor=anchor, fill=fill or theme.muted)


def upright(theme: Theme, x: float, y: float, words: str) -> str:
    """A label of a vertical axis."""
    return (
        f'<text transform="translate({x} {y}) rotate(-90)" font-size="15" text-anchor="middle" fill="{theme.muted}">'
        f"{words}</text>"
    )


def line(colour: str, points: list[Point], width: float = 1.8, dashes: str = "") -> str:
    """A line through points."""
    path = " ".join(f"{'M' if place == 0 else 'L'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(points))
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}" fill="none" stroke-linejoin="round"{dashed}/>'


def dot(colour: str, x: float, y: float, radius: float = 6, fill: str = "") -> str:
    """A filled circle, or a ring of another filling."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill or colour}" stroke="{colour}" stroke-width="2"/>'
    )


def bar(x: float, y: float, width: float, height: float, fill: str, edge: str, dashes: str = "") -> str:
    """A rectangle."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" fill="{fill}" stroke="{edge}" '
        f'stroke-width="1.6"{dashed}/>'
    )


# --- schemes -------------------------------------------------------------------------------------------------------------


def method(theme: Theme) -> list[str]:
    """What goes into a method and what comes out."""
    parts = []
    for place, (name, shape) in enumerate((("losses", "T"), ("inner products", "T × T"), ("gradients", "T × n"))):
        y = 16 + 62.0 * place
        parts += [*named(theme, 8, y, 172, 48, name, shape), arrow(theme.ink, (184, y + 24), (248, 78 + 16 * place))]
    return [
        *parts,
        *named(theme, 252, 56, 148, 76, "method", "IMTLG, MGDA, …", size=17),
        arrow(theme.ink, (404, 82), (446, 52)),
        arrow(theme.muted, (404, 108), (446, 138), dashes="5 4"),
        *named(theme, 450, 22, 182, 56, "weights", "one for each task"),
        *named(theme, 450, 112, 182, 56, "an update", "a few methods"),
        label(theme, 94, 216, "one or two of these", anchor="middle"),
    ]


def passes(theme: Theme) -> list[str]:
    """The passes of one step, as bars whose lengths are their relative cost."""
    rows = (
        ("plain sum", (("forward", 60, 0), ("heads", 34, 1), ("encoder", 92, 1))),
        ("Fork", (("forward", 60, 0), ("heads", 34, 1), ("encoder", 92, 1))),
        ("Balancer", (("forward", 60, 0), ("heads", 34, 1), ("T passes", 176, 2), ("encoder", 92, 1))),
        ("samples=64", (("forward", 60, 0), ("heads", 34, 1), ("T × 64", 64, 2), ("encoder", 92, 1))),
    )
    parts = [label(theme, 132, 20, "time of a step →")]
    for place, (name, blocks) in enumerate(rows):
        x, y = 132.0, 32 + 48.0 * place
        parts.append(text(theme, 122, y + 23, name, anchor="end", weight="600" if place == 1 else "400"))
        for words, width, kind in blocks:
            if name != "plain sum" and words == "encoder":
                parts.append(bar(x, y, 8, 34, theme.ink, theme.ink))
                x += 12
            edge = theme.seg if kind == 2 else theme.ink
            parts += [
                bar(x, y, width, 34, theme.panel if kind == 0 else theme.box, edge, "5 3" if kind == 2 else ""),
                text(theme, x + width / 2, y + 22, "" if width < 50 else words, size=14, fill=edge),
            ]
            x += width + 4
    return [
        *parts,
        bar(132, 232, 8, 16, theme.ink, theme.ink),
        label(theme, 148, 246, "weights: a T × T problem"),
        bar(356, 232, 26, 16, theme.box, theme.ink),
        label(theme, 390, 246, "backward of the heads"),
    ]


def front(theme: Theme) -> list[str]:
    """Models of a front in the plane of two losses, and the preference of each."""
    curve = [(92 + 400 * (k / 40) ** 1.0, 232 - 196 * (1 - k / 40) ** 2.2) for k in range(41)]
    points = [curve[k] for k in (3, 8, 14, 21, 29, 37)]
    rays = [line(theme.muted, [(72, 252), point], 1.2, "3 4") for point in points]
    return [
        arrow(theme.ink, (72, 252), (560, 252)),
        arrow(theme.ink, (72, 252), (72, 20)),
        label(theme, 562, 272, "loss of task 1", anchor="end"),
        upright(theme, 58, 100, "loss of task 2"),
        line(theme.depth, curve, 2.2, "7 4"),
        *rays,
        *(dot(theme.ink, x, y) for x, y in points),
        dot(theme.ink, 330, 120, fill=theme.box),
        label(theme, 344, 125, "a model that others dominate"),
        label(theme, 140, 60, "a model for each preference", fill=theme.ink),
        label(theme, 330, 190, "no model is better in every task", fill=theme.depth),
    ]


def search(theme: Theme) -> list[str]:
    """A loss along the step, Armijo's line, a refused and an accepted trial."""

    def loss(step: float) -> float:
        return 70 - 0.62 * step + 0.0011 * step * step

    def at(step: float) -> Point:
        return (76 + step, 16 + (230 - (loss(step) + 62) * 1.25))

    curve = [at(12.0 * k) for k in range(46)]
    required = [(76 + step, 16 + (230 - (70 - 0.10 * step + 62) * 1.25)) for step in (0.0, 540.0)]
    refused, accepted = 520.0, 430.0
    return [
        arrow(theme.ink, (76, 256), (628, 256)),
        arrow(theme.ink, (76, 256), (76, 20)),
        label(theme, 628, 276, "step", anchor="end"),
        upright(theme, 60, 120, "loss of one task"),
        line(theme.seg, curve, 2.6),
        line(theme.depth, required, 1.8, "8 4"),
        label(theme, 250, 66, "required decrease: the share β of the slope", fill=theme.depth),
        dot(theme.ink, *at(refused), fill=theme.box),
        label(theme, 556, 128, "refused", anchor="end"),
        dot(theme.ink, *at(accepted)),
        label(theme, 500, 216, "accepted", anchor="end", fill=theme.ink),
    ]


def intervals(theme: Theme) -> list[str]:
    """Differences to the reference with intervals: better, not distinguishable, worse."""
    rows = (
        ("method A", 220, 150, 290, "better"),
        ("method B", 325, 255, 405, "not distinguishable"),
        ("method C", 468, 400, 548, "worse"),
    )
    parts = [
        line(theme.ink, [(350, 34), (350, 202)], 1.4, "4 4"),
        label(theme, 350, 24, "0: as the reference", anchor="middle", fill=theme.ink),
        label(theme, 130, 224, "← better"),
        label(theme, 560, 224, "worse →", anchor="end"),
    ]
    for place, (name, mean, low, high, verdict) in enumerate(rows):
        y = 62 + 52.0 * place
        touches = low <= 350 <= high
        colour = theme.muted if touches else theme.ink
        parts += [
            text(theme, 8, y + 5, name, anchor="start"),
            line(colour, [(low, y), (high, y)], 3, "6 3" if touches else ""),
            line(colour, [(low, y - 8), (low, y + 8)], 2),
            line(colour, [(high, y - 8), (high, y + 8)], 2),
            dot(colour, mean, y),
            text(theme, 632, y + 5, verdict, anchor="end", size=15, weight="600"),
        ]
    return parts


def workload(theme: Theme) -> list[str]:
    """Inputs, encoder, features, heads, outputs, losses and metrics."""
    parts = [
        *named(theme, 8, 68, 78, 48, "inputs"),
        arrow(theme.ink, (90, 92), (116, 92)),
        *named(theme, 120, 62, 96, 60, "encoder"),
        maths(theme, 247, 82, "z", size=18),
        line(theme.ink, [(220, 92), (272, 92)]),
    ]
    for task, y in (("sign", 34.0), ("size", 150.0)):
        parts += [
            arrow(theme.ink, (272, 92), (306, y)),
            *named(theme, 310, y - 24, 110, 48, f"head “{task}”", size=15),
            arrow(theme.ink, (424, y), (456, y)),
            *named(theme, 460, y - 28, 172, 56, "output", "loss, metrics"),
        ]
    return parts


def presence(theme: Theme) -> list[str]:
    """A batch in which one task has no labels: its row is left out of the step."""
    labels = {"seg": "11011", "depth": "00000", "normals": "10110"}
    parts = [label(theme, 96, 22, "labels in this batch")]
    for row, (task, has) in enumerate(labels.items()):
        y = 36 + 44.0 * row
        present = "1" in has
        parts.append(text(theme, 86, y + 22, task, anchor="end", fill="" if present else theme.muted))
        parts += [
            bar(96 + 34.0 * place, y, 28, 32, theme.depth if mark == "1" else theme.box, theme.ink if present else theme.muted,
                "" if mark == "1" else "3 3")
            for place, mark in enumerate(has)
        ]  # fmt: skip
        words = "in this step" if present else "left out: weight 0, state unchanged"
        parts += [
            arrow(theme.ink if present else theme.muted, (274, y + 16), (322, y + 16), dashes="" if present else "4 4"),
            text(theme, 332, y + 22, words, anchor="start", size=15, fill="" if present else theme.muted),
        ]
    return parts


def own_inputs(theme: Theme) -> list[str]:
    """Two inputs pass one encoder: the features differ, the parameters are the same."""
    parts = []
    for task, y, colour in (("photos", 40.0, theme.seg), ("scans", 160.0, theme.depth)):
        dashes = DASHES["seg" if task == "photos" else "depth"]
        parts += [
            *named(theme, 8, y - 22, 90, 44, task),
            arrow(theme.ink, (102, y), (170, 100 + (y - 100) * 0.4)),
            arrow(theme.ink, (300, 100 + (y - 100) * 0.4), (366, y)),
            *named(theme, 370, y - 26, 120, 52, "features", f"of the {task}", size=15),
            arrow(theme.ink, (494, y), (524, y)),
            *named(theme, 528, y - 22, 104, 44, "head, loss", size=15),
            arrow(colour, (366, y + (16 if y < 100 else -16)), (304, 100 + (y - 100) * 0.16), width=2.4, dashes=dashes),
        ]
    return [
        *parts,
        *named(theme, 174, 58, 124, 84, "encoder", "one set of", "parameters", size=17),
        label(theme, 430, 106, "no common entries", anchor="middle"),
        label(theme, 236, 164, "the gradients meet here", anchor="middle", fill=theme.ink),
    ]


def ranks(theme: Theme) -> list[str]:
    """Two processes: their Gramians are summed, so both use the same weights."""
    parts = []
    for rank, y in ((0, 36.0), (1, 176.0)):
        parts += [
            text(theme, 8, y + 5, f"rank {rank}", anchor="start", weight="600"),
            *named(theme, 70, y - 24, 92, 48, "encoder"),
            arrow(theme.ink, (166, y), (188, y)),
            f'<rect x="192" y="{y - 24}" width="64" height="48" rx="10" fill="{theme.accent}"/>',
            text(theme, 224, y + 6, "Fork", weight="700", fill=theme.box),
            arrow(theme.ink, (260, y), (282, y)),
            *named(theme, 286, y - 24, 130, 48, "heads, losses", size=15),
            arrow(theme.depth, (224, 64 if rank == 0 else 148), (224, 86 if rank == 0 else 126), width=2.2),
            maths(theme, 246, 84 if rank == 0 else 142, f"G{sub(str(rank))}", size=16, fill=theme.depth),
        ]
    return [
        *parts,
        line(theme.depth, [(224, 86), (224, 126)], 2.2),
        arrow(theme.depth, (224, 106), (316, 106), width=2.2),
        *named(theme, 320, 84, 312, 44, "one sum, the same weights on all ranks", size=15),
        label(theme, 70, 232, "DistributedDataParallel averages one gradient, as without the Fork"),
    ]


def images(theme: Theme) -> list[str]:
    """Image folders to tensors, and the pack that shortens it."""
    parts = []
    for place, (name, target) in enumerate((("ImageNet", "class"), ("COCO", "mask of 21 classes"))):
        y = 16 + 76.0 * place
        parts += [
            *named(theme, 8, y, 108, 52, name, "JPEG files", size=15),
            arrow(theme.ink, (120, y + 26), (146, y + 26)),
            *named(theme, 150, y, 130, 52, "square", "9/8 of the size", size=15),
            arrow(theme.ink, (284, y + 26), (310, y + 26)),
            *named(theme, 314, y, 120, 52, "crop, mirror", "drawn per epoch", size=15),
            arrow(theme.ink, (438, y + 26), (462, y + 26)),
            *named(theme, 466, y, 166, 52, "image", target, size=15),
        ]
    return [
        *parts,
        line(theme.depth, [(215, 150), (215, 184)], 2, "4 4"),
        label(theme, 132, 204, "paretorch data pack stores the squares, memory-mapped", fill=theme.depth),
    ]


def attention(theme: Theme) -> list[str]:
    """MTAN: a shared SegNet, and masks of each task."""
    parts = [
        *named(theme, 8, 84, 90, 52, "image"),
        arrow(theme.ink, (102, 110), (126, 110)),
        *named(theme, 130, 62, 130, 96, "SegNet", "shared maps", "of 5 levels", size=17),
    ]
    for place, task in enumerate(("segmentation", "depth", "normals")):
        y = 30 + 80.0 * place
        parts += [
            arrow(theme.ink, (264, 110 + 22 * (place - 1)), (306, y)),
            *named(theme, 310, y - 24, 128, 48, "masks", "one per level", size=15),
            arrow(theme.ink, (442, y), (470, y)),
            *named(theme, 474, y - 22, 158, 44, task, size=15),
        ]
    return [
        *parts,
        line(theme.depth, [(374, 56), (374, 84)], 2, "4 4"),
        line(theme.depth, [(374, 136), (374, 164)], 2, "4 4"),
        label(theme, 466, 74, "convolutions between", fill=theme.depth),
        label(theme, 466, 154, "the masks are shared", fill=theme.depth),
    ]


def study(theme: Theme) -> list[str]:
    """A run for each treatment and seed; the runs of a seed share initial weights and batches."""
    parts = [label(theme, 118 + 62 * seed, 24, f"seed {seed}", anchor="middle") for seed in range(5)]
    parts.append(f'<rect x="212" y="34" width="60" height="152" rx="8" fill="{theme.panel}"/>')
    for row, treatment in enumerate(("sum", "tuned", "IMTLG")):
        y = 42 + 50.0 * row
        parts.append(text(theme, 82, y + 24, treatment, anchor="end"))
        parts += [
            bar(96 + 62.0 * seed, y, 44, 36, theme.box, theme.seg if row == 2 else theme.ink, "5 3" if row == 2 else "")
            for seed in range(5)
        ]
    return [
        *parts,
        label(theme, 242, 208, "the same initial weights and batches", anchor="middle", fill=theme.ink),
        arrow(theme.ink, (404, 110), (448, 110)),
        *named(theme, 452, 66, 180, 88, "report", "differences by seed,", "intervals, figures", size=17),
    ]


def scales(theme: Theme) -> list[str]:
    """The sum of a long and a short gradient is nearly the long one."""
    return [
        label(theme, 160, 24, "plain sum", anchor="middle", fill=theme.ink),
        label(theme, 482, 24, "lengths balanced", anchor="middle", fill=theme.ink),
        line(theme.muted, [(320, 12), (320, 196)], 1, "3 4"),
        arrow(theme.depth, (40, 170), (276, 128), width=2.6, dashes=DASHES["depth"]),
        arrow(theme.seg, (40, 170), (46, 136), width=2.6, dashes=DASHES["seg"]),
        arrow(theme.ink, (40, 170), (282, 94), width=4.6),
        label(theme, 196, 170, "g of “size”", fill=theme.depth),
        label(theme, 16, 122, "g of “sign”", fill=theme.seg),
        arrow(theme.depth, (392, 178), (508, 157), width=2.6, dashes=DASHES["depth"]),
        arrow(theme.seg, (392, 178), (412, 62), width=2.6, dashes=DASHES["seg"]),
        arrow(theme.ink, (392, 178), (528, 41), width=4.6),
        label(theme, 514, 172, "g of “size”", fill=theme.depth),
        label(theme, 344, 96, "g of", fill=theme.seg),
        label(theme, 344, 115, "“sign”", fill=theme.seg),
        label(theme, 540, 60, "the step", fill=theme.ink),
        label(theme, 150, 86, "the step", fill=theme.ink),
    ]


SCHEMES = {
    "method": Scheme(
        "A method receives losses, inner products or gradients, and returns weights or one update.", 228, method
    ),
    "passes": Scheme(
        "The passes of a step: the Fork adds a small problem to those of the plain sum, the Balancer passes through the encoder "
        "for every task.",
        258,
        passes,
    ),
    "front": Scheme(
        "Two losses as axes: a curve of models, each for one preference, none better than another in both.", 284, front
    ),
    "search": Scheme(
        "A loss along the step: a trial above the required decrease is refused, one below it is accepted.", 286, search
    ),
    "intervals": Scheme(
        "Three differences with intervals: one below zero is better, one that touches zero is not distinguishable, one above is "
        "worse.",
        236,
        intervals,
    ),
    "workload": Scheme(
        "Inputs pass one encoder; its features pass the head of each task, which has a loss and metrics.", 186, workload
    ),
    "presence": Scheme(
        "Labels of three tasks in one batch: the task without any label is left out of the step.", 172, presence
    ),
    "own_inputs": Scheme(
        "Photos and scans pass one encoder: their features have no common entries, their gradients meet on the parameters.",
        200,
        own_inputs,
    ),
    "ranks": Scheme("Two ranks sum their Gramians, so that both use the same weights.", 244, ranks),
    "images": Scheme(
        "Image files become squares, are cropped and mirrored, and become an image with a class or a mask.", 216, images
    ),
    "attention": Scheme(
        "MTAN: the maps of a shared SegNet pass the masks of each task; convolutions between masks are shared.",
        224,
        attention,
    ),
    "study": Scheme(
        "A run for each treatment and seed. The runs of one seed have the same initial weights and batches.", 220, study
    ),
    "scales": Scheme(
        "Left, the sum of a long and a short gradient is nearly the long one; right, of equal lengths it is between them.",
        200,
        scales,
    ),
}


def pictures() -> dict[str, str]:
    """File names and contents."""
    return {
        f"{name}-{shade}.svg": drawn(scheme, theme)
        for name, scheme in SCHEMES.items()
        for shade, theme in THEMES.items()
    }


def main() -> None:
    """Write all pictures."""
    for name, content in pictures().items():
        (HERE / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
