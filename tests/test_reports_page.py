"""The page of a report: completeness, escaping, and size."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import reports_many as many
from paretorch.reports.figures.cosines import MOST_PAIRS, cosine_curves
from paretorch.reports.figures.curves import values, weights
from paretorch.reports.figures.styles import style
from paretorch.reports.page.page import Contents, page
from paretorch.reports.report import Report, report

EVIL = ["<b>bold</b>", "</script><script>alert(1)</script>", "a & b \"q\" 'x'", "$x_1$", "_under", "=1+1"]


class Reader(HTMLParser):
    """What a browser would make of the page: elements, text outside of scripts, links, and what scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", list[str]()
        self.open: list[str] = []
        self.elements: list[tuple[dict[str, str | None], str]] = []  # the attributes around each piece of text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data
            self.elements.append((self.tags[-1][1] if self.tags else {}, data))

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def parse_page(found: Report) -> Reader:
    reader = Reader()
    reader.feed(found.page.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = tmp_path_factory.mktemp("page") / "evil"
    many.finished(
        path, many.study(EVIL, epochs=5), ["<i>left</i>", "</script>", "über | pipe"], 4, nan=True, failed=["$x_1$"]
    )
    return report(path)


def test_page_has_no_external_links(evil: Report) -> None:
    for tag, attributes in parse_page(evil).tags:
        for name in ("src", "href", "srcset", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, f"<{tag} {name}={value[:60]}>"


def test_page_escapes_names(evil: Report) -> None:
    reader = parse_page(evil)
    assert len(reader.scripts) == 3, "data, library, script; a name ended one or began another"
    assert not [tag for tag, _ in reader.tags if tag in ("b", "i")]
    for label in EVIL:
        assert label in reader.text
    assert reader.data["parts"][0]["labels"] == EVIL
    assert "ValueError: </script><b>no</b>" in reader.text, "the traceback of a failed run"
    assert "4 runs are left out" in re.sub(r"\s+", " ", reader.text)


def test_page_data_has_null_for_non_finite_numbers(evil: Report) -> None:
    text = parse_page(evil).scripts[0]
    assert not re.search(r"\b(NaN|Infinity)\b", text)
    losses = parse_page(evil).data["figures"]["w0-losses"]["panels"][0]["marks"][1]["v"][2]
    assert losses[-1] is None
    assert losses[0] == 1.0


def test_page_contains_all_sections_and_figures(evil: Report) -> None:
    reader = parse_page(evil)
    anchors = {attributes.get("id") for _, attributes in reader.tags}
    links = {
        (a.get("href") or "")[1:] for tag, a in reader.tags if tag == "a" and (a.get("href") or "").startswith("#")
    }
    assert links <= anchors
    shown = {a["data-figure"] for tag, a in reader.tags if tag == "figure"}
    assert shown == set(reader.data["figures"])
    names = ("differences", "curves", "losses", "trade-off", "cost", "weights", "cosines", "matrix")
    assert shown == {f"w0-{name}" for name in names}
    for words in (
        "How each number is defined",
        "Settings of every treatment",
        "paretorch study many --scale smoke --seeds 4",
    ):
        assert words in reader.text
    heads = [a for tag, a in reader.tags if tag == "th"]
    assert heads
    assert all(a.get("scope") in ("row", "col") for a in heads)


def test_page_has_downloads_of_tables(evil: Report) -> None:
    links = {a["download"]: a["href"] or "" for tag, a in parse_page(evil).tags if tag == "a" and "download" in a}
    assert set(links) == {"treatments.csv", "seeds.csv"}
    text = base64.b64decode(links["treatments.csv"].partition("base64,")[2]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["treatment"] for row in rows] == [*EVIL[:5], "'=1+1"], "a spreadsheet would compute the last one"
    assert rows[0]["verdict"] == "reference"
    assert float(rows[0]["delta_m mean"]) == pytest.approx(0.0, abs=1e-6)
    assert rows[3]["delta_m mean"] == ""
    seeds = list(csv.DictReader(io.StringIO((evil.page.parent / "report" / "seeds.csv").read_text())))
    assert len(seeds) == len(EVIL) * 4


@pytest.mark.parametrize(("labels", "tasks", "seeds", "epochs"), [(1, 2, 1, 1), (2, 1, 2, 1), (3, 2, 3, 2)])
def test_page_of_small_study_states_missing_intervals(
    tmp_path: Path, labels: int, tasks: int, seeds: int, epochs: int
) -> None:
    names = [f"way {i}" for i in range(labels)]
    many.finished(tmp_path / "s", many.study(names, epochs), [f"task {i}" for i in range(tasks)], seeds)
    found = report(tmp_path / "s")
    text = parse_page(found).text
    withheld = "Intervals and tests are withheld" in text
    assert withheld == (seeds < 3)
    assert ("there is nothing to compare it with" in text) == (labels == 1)
    curve = parse_page(found).data["figures"]["w0-curves"]["panels"][0]["marks"][0]
    assert ("b" in curve) == (seeds >= 3)


@pytest.mark.long
def test_page_of_many_treatments_and_tasks_has_bounded_size(tmp_path: Path) -> None:
    names, tasks = [f"treatment {i}" for i in range(30)], [f"attribute {i}" for i in range(40)]
    many.finished(tmp_path / "s", many.study(names, epochs=2), tasks, 3)
    found = report(tmp_path / "s")
    assert found.page.stat().st_size < 8e6
    data = parse_page(found).data
    assert len(data["figures"]["w0-cosines"]["panels"]) == MOST_PAIRS
    assert "Of 780 pairs, these are the 15 with the lowest mean" in parse_page(found).text
    assert len(data["figures"]["w0-matrix"]["panels"][0]["matrix"]) == 40
    assert data["parts"][0]["first"][0] == 0, "the reference is shown first"
    styles = {tuple(each) for each in data["styles"]}
    assert len(styles) == len(data["styles"]) == 64


def test_styles_differ_without_colour() -> None:
    assert len({(style(index).dash, style(index).symbol) for index in range(64)}) == 64
    assert len({style(index).dash for index in range(8)}) == len({style(index).symbol for index in range(8)}) == 8


def test_weights_and_cosines_equal_means_over_runs(tmp_path: Path) -> None:
    folder = many.finished(tmp_path / "s", many.study(["one", "two"], epochs=3), ["a", "b"], 3)
    summary = report(tmp_path / "s").summary
    jobs = [job for job in folder.jobs() if job.label == "two"]
    history = [many.result(job.run, ["a", "b"], 1).history for job in jobs]
    curve = weights(summary)[0].panels[1].marks[1]
    assert values(curve)[2] == pytest.approx(sum(epochs[2].weights["b"] for epochs in history) / 3)
    (pair,) = cosine_curves(summary)[0].panels
    assert pair.title == "a and b"
    assert values(pair.marks[1])[0] == pytest.approx(sum(epochs[0].cosines["a"][0] for epochs in history) / 3)


def test_page_depends_on_files_alone(evil: Report) -> None:
    assert page(tuple(map(Contents.of, evil.summaries))) == evil.page.read_text(encoding="utf-8")


@pytest.mark.long
def test_page_of_five_hundred_runs_has_bounded_size(tmp_path: Path) -> None:
    folder = many.finished(tmp_path / "s", many.study([f"way {i}" for i in range(50)], epochs=100), ["a", "b", "c"], 10)
    assert len(folder.jobs()) == 500
    found = report(tmp_path / "s")
    assert found.page.stat().st_size < 8e6
    assert len(found.summary.rows) == 50
    panels = parse_page(found).data["figures"]["w0-curves"]["panels"]
    epochs = [marks["v"][0] for panel in panels for marks in panel["marks"]]
    assert all(each[0] == 1 and each[-1] == 100 for each in epochs)


def test_page_requests_nothing_from_the_network(evil: Report) -> None:
    reader = parse_page(evil)
    policies = [attributes["content"] for tag, attributes in reader.tags if attributes.get("http-equiv") is not None]
    assert len(policies) == 1
    rules = dict(rule.split(" ", 1) for rule in str(policies[0]).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["form-action"] == rules["base-uri"] == "'none'"
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in reader.scripts
    ]
    assert rules["script-src"].split() == digests[1:], "the library and the script, and no other"
    for name, sources in rules.items():
        assert not re.search(r"https?:|\*|unsafe-eval", sources), name
        assert "unsafe-inline" not in sources or name == "style-src"
    first = next(place for place, (tag, _) in enumerate(reader.tags) if tag in ("script", "style", "link"))
    assert "http-equiv" in {name for _, attributes in reader.tags[:first] for name in attributes}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]


def test_page_accepts_names_of_any_length_and_direction(tmp_path: Path) -> None:
    long, hebrew = "L" * 10_000, "\u05d0\u05d1\u05d2\u202e<b>\u0627\u0644"
    of = many.study([long, hebrew, "sum"], epochs=2, name="n" * 10_000)
    many.finished(tmp_path / "study", of, ("T" * 10_000, hebrew), 3)
    found = report(tmp_path / "study", formats=("png",))
    reader = parse_page(found)
    assert reader.data["parts"][0]["labels"] == [long, hebrew, "sum"]
    for name in (long, hebrew):
        holders = [attributes for attributes, text in reader.elements if text == name]
        assert holders
        assert all(attributes.get("dir") == "auto" for attributes in holders), "directions are isolated"
        assert any("name" in str(attributes.get("class")).split() for attributes in holders), "long ones are cut"
    pictures = [path for path in found.files if path.suffix == ".png"]
    assert pictures
    assert all(path.stat().st_size < 1_000_000 for path in pictures)
