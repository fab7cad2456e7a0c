"""Pages of reports, fronts, diagnoses and the documentation in a browser: layout, print, keyboard, accessibility, cost.

Needs playwright, axe-playwright-python (which ships axe-core) and the system's Chromium; skipped without them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import paretorch as pt
import reports_many as many
from paretorch.reports.page.diagnosis import write_diagnosis
from paretorch.reports.page.front import write_front_page
from paretorch.reports.report import report
from paretorch.training.fronts.run import train_front
from paretorch.training.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MODES = [(1280, "light"), (768, "dark"), (400, "light"), (400, "dark")]
PAGES = ("study", "many", "front", "space", "diagnosis")
DOCUMENTS = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))

OUTSIDE = """() => {
  const scrolls = (box) => box && (["auto", "scroll"].includes(getComputedStyle(box).overflowX) || scrolls(box.parentElement));
  const edge = document.documentElement.clientWidth + 1;
  return [...document.querySelectorAll("h1, h2, h3, h4, p, li, dt, dd, button, select, figure, img, table, pre, .svg-container")]
    .map((element) => [element, element.getBoundingClientRect()])
    .filter(([element, { width }]) => element.checkVisibility() && width > 1 && !scrolls(element))
    .filter(([element, { left, right }]) => right > edge || (left < -1 && right > 0))
    .map(([element]) => `${element.tagName} ${(element.textContent || element.alt || "").trim().slice(0, 60)}`);
}"""  # elements that are partly beyond the edge of the page, and not within a box that scrolls
CUT_TITLES = """() => [...document.querySelectorAll(".js-plotly-plot")].flatMap((plot) => {
  const edge = plot.getBoundingClientRect();
  const inside = ({ left, right, top, bottom }) =>
    left >= edge.left - 1 && right <= edge.right + 1 && top >= edge.top - 1 && bottom <= edge.bottom + 1;
  return [...plot.querySelectorAll(".g-xtitle text, .g-ytitle text")]
    .filter((text) => text.textContent.includes("…") || !inside(text.getBoundingClientRect()))
    .map((text) => text.textContent);
})"""
HIDDEN_SCROLLING = """() => [...document.querySelectorAll(".scroll, .table-wrapper, article pre")].filter((box) => {
  if (!box.checkVisibility() || box.scrollWidth <= box.clientWidth + 1) return false;
  const bar = box.offsetHeight - box.clientHeight > 3;
  const shadow = box.closest(".frame[data-right]") || box.classList.contains("scrolls-right");
  return !(bar && shadow && box.tabIndex === 0);
}).map((box) => box.textContent.trim().slice(0, 60))"""  # boxes without scrollbar, shadow or keyboard


@dataclass
class Opened:
    """A page in a browser, and what it has reported since."""

    page: Page
    width: int
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, browser: Browser, path: Path, width: int, scheme: Any = "light") -> Opened:
        """The page of this file, with all its figures drawn."""
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        opened = cls(context.new_page(), width)
        page = opened.page
        page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri())
        for place in range(page.locator("figure").count()):
            page.locator("figure").nth(place).scroll_into_view_if_needed()
        page.wait_for_function(
            "[...document.querySelectorAll('.panels')].every((panels) => panels.childElementCount > 0)"
        )
        page.wait_for_timeout(200)  # sizes are observed after a frame
        return opened

    def close(self) -> None:
        self.page.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("needs playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs one of {', '.join(PROGRAMS)}: apt-get install chromium")
    with sync_playwright() as started:
        # the hidden scrollbars of headless pages are shown, as a reader sees them
        found = started.chromium.launch(
            executable_path=program, args=["--no-sandbox"], ignore_default_args=["--hide-scrollbars"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    try:
        import axe_playwright_python  # noqa: F401
    except ImportError:
        pytest.skip("needs axe-core: pip install axe-playwright-python")
    package = import_module("axe_playwright_python")
    return resources.files(package).joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the pages: a study of 50 runs; one of 20 treatments on 2 workloads; fronts of 2 and 3 tasks; a diagnosis."""
    folder = tmp_path_factory.mktemp("pages")
    labels = [f"Method {place}" for place in range(10)]
    many.finished(folder / "study", many.study(labels, epochs=15), ["ink", "noise", "left"], 5)
    labels = [f"Momentum(Method{place}()) on parameters" for place in range(20)]
    workloads = ("digits", "a_workload_with_a_long_name")
    many.finished(folder / "many", many.study(labels, epochs=2, workloads=workloads), ["left", "right"], 3)
    small = {"front": "mt2o", "front_options": {"models": 6}, "epochs": 2, "batch_size": 32}
    for name, options in (("front", {"samples": 64, "hidden": 8}), ("space", {"problem": "dtlz2"})):
        train_front(Run("synthetic", options=options, **small), folder / name, progress=None)  # type: ignore[arg-type]
    return {name: report(folder / name).page for name in ("study", "many")} | {
        **{name: write_front_page(folder / name) for name in ("front", "space")},
        "diagnosis": write_diagnosis(diagnosis(), folder / "diagnosis", "a model of two tasks"),
    }


def diagnosis() -> pt.Diagnosis:
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)])
    return pt.diagnose(
        model,
        lambda m, x: {
            name: (m[place](m[0](x))[:, 0] - x[:, place]).square().mean() for place, name in ((1, "one"), (2, "two"))
        },
        [torch.randn(8, 3) for _ in range(5)],
        warmup=0,
    )


@pytest.fixture(
    scope="module",
    params=[(name, *mode) for name in PAGES for mode in MODES],
    ids=lambda param: "-".join(map(str, param)),
)
def opened(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    name, width, scheme = request.param
    found = Opened.at(browser, pages[name], width, scheme)
    yield found
    found.close()


def serious(found: Opened, axe: str) -> list[str]:
    """Findings of axe-core that are serious or critical."""
    found.page.evaluate(axe)
    violations = found.page.evaluate("axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
    return [
        f"{each['id']}: {each['nodes'][0]['target']} and {len(each['nodes']) - 1} more"
        for each in violations
        if each["impact"] in ("serious", "critical")
    ]


def test_page_has_no_errors_and_no_requests(opened: Opened) -> None:
    assert opened.errors == []
    assert [url for url in opened.requests[1:] if not url.startswith(("data:", "blob:"))] == []
    assert opened.requests[0].startswith("file:")


def test_page_fits_its_width(opened: Opened) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.width
    assert opened.page.evaluate(OUTSIDE) == []


def test_page_shows_whole_axis_titles(opened: Opened) -> None:
    assert opened.page.evaluate(CUT_TITLES) == []


def test_page_shows_that_tables_scroll(opened: Opened) -> None:
    assert opened.page.evaluate(HIDDEN_SCROLLING) == []


def test_page_has_no_serious_accessibility_findings(opened: Opened, axe: str) -> None:
    assert serious(opened, axe) == []


def test_page_axe_finds_a_planted_fault(browser: Browser, pages: dict[str, Path], axe: str) -> None:
    found = Opened.at(browser, pages["diagnosis"], 1280)
    found.page.evaluate("document.querySelector('main').append(document.createElement('select'))")
    assert [finding.split(":")[0] for finding in serious(found, axe)] == ["select-name"]
    found.close()


def test_page_checks_find_planted_faults(browser: Browser, pages: dict[str, Path]) -> None:
    found = Opened.at(browser, pages["study"], 400)
    found.page.evaluate("document.querySelector('.frame').removeAttribute('data-right')")
    found.page.evaluate("document.querySelector('h1').style.translate = '350px'")
    found.page.evaluate("document.querySelector('.g-xtitle text').style.transform = 'translateX(300px)'")
    assert len(found.page.evaluate(HIDDEN_SCROLLING)) == 1
    assert found.page.evaluate(OUTSIDE) == ["H1 many"]
    assert len(found.page.evaluate(CUT_TITLES)) == 1
    found.close()


def test_report_is_usable_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    found = Opened.at(browser, pages["study"], 400)
    page = found.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"

    table = page.locator("#w0-overview")
    button = table.locator("thead button", has_text="difference")
    values = (
        "[...document.querySelectorAll('#w0-overview tbody tr')].map((row) => parseFloat(row.cells[3].textContent))"
    )
    for key, sign in (("Enter", 1), ("Space", -1)):
        button.press(key)
        shown = [sign * value for value in page.evaluate(values)[:9]]
        assert shown == sorted(shown)

    box = page.locator(".scroll").first
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.scroll').scrollLeft > 0")
    page.wait_for_function("document.querySelector('.frame').hasAttribute('data-left')")

    lines = "document.querySelector('#w0-curves .js-plotly-plot').data.length"
    before = page.evaluate(lines)
    page.locator(".keys button").first.press("Space")
    assert page.evaluate(lines) == before - 1
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    found.close()


def test_front_is_usable_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    found = Opened.at(browser, pages["front"], 1280)
    page = found.page
    last = page.locator("#models tbody tr").last
    last.locator("button").press("Enter")
    assert last.get_attribute("aria-selected") == "true"
    chosen = page.locator("#chosen").text_content()
    page.locator("#weights input").press("Home")
    first = page.locator("#chosen").text_content()
    page.locator("#weights input").press("End")
    assert first != page.locator("#chosen").text_content()
    assert chosen == "Model 5 of 6"
    found.close()


def test_report_of_many_treatments_shows_the_best_first_and_hides_none(
    browser: Browser, pages: dict[str, Path]
) -> None:
    found = Opened.at(browser, pages["many"], 1280)
    page = found.page
    part = page.locator("#w0")
    assert part.locator(".keys button").count() == 10
    assert part.locator(".choices [data-treatment]").count() == 20
    quality = page.evaluate(
        "[...document.querySelectorAll('#w0-overview tbody tr')].map((row) => parseFloat(row.cells[2].textContent))"
    )
    assert len(quality) == 20
    assert quality == sorted(quality)

    lines = "document.querySelector('#w0-curves .js-plotly-plot').data.length"
    before = page.evaluate(lines)
    part.locator(".legend summary").press("Enter")
    part.locator(".choices [aria-pressed=false]").first.press("Enter")
    assert page.evaluate(lines) == before + 1
    assert part.locator(".keys [aria-pressed=true]").count() == 11

    listed = part.locator(".groups li").all_text_contents()
    assert len(listed) == 19
    part.locator("#w0-settings").scroll_into_view_if_needed()
    covered = """document.querySelector('#w0 .legend').getBoundingClientRect().bottom
      > document.querySelector('#w0-settings').getBoundingClientRect().top"""
    assert not page.evaluate(covered), "the legend is above the figures alone"
    found.close()


@pytest.mark.parametrize("name", ["study", "front"])
def test_page_prints_figures_of_the_paper_in_light_colours(browser: Browser, pages: dict[str, Path], name: str) -> None:
    found = Opened.at(browser, pages[name], 1280, "dark")
    page = found.page
    state = """() => [...document.querySelectorAll(".js-plotly-plot")].map((plot) => [
      plot.querySelector(".main-svg").getBoundingClientRect().width,
      getComputedStyle(plot.querySelector(".xtick text, .g-xtitle text")).fill,
    ])"""
    before = page.evaluate(state)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    printed = page.evaluate(state)
    assert max(width for width, _ in printed) <= 700 < max(width for width, _ in before) + 200
    assert {colour for _, colour in printed} == {"rgb(0, 0, 0)"}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert {colour for _, colour in page.evaluate(state)} == {colour for _, colour in before} != {"rgb(0, 0, 0)"}
    assert page.pdf(format="A4").startswith(b"%PDF")
    found.close()


def test_report_of_fifty_runs_costs_little_beside_its_library(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """The processor time until the page is at rest, as a multiple of the plotting library's own."""
    from plotly.offline import get_plotlyjs

    (tmp_path / "bare.html").write_text(f"<!doctype html><meta charset=utf-8><script>{get_plotlyjs()}</script>")
    assert pages["study"].stat().st_size <= 6e6

    def seconds(path: Path) -> float:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(path.as_uri())
        page.wait_for_timeout(500)
        found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        context.close()
        return float(found["TaskDuration"])

    times = [(seconds(pages["study"]), seconds(tmp_path / "bare.html")) for _ in range(3)]
    print("seconds of the page, and of the library alone:", times)
    assert min(page for page, _ in times) < 2 * min(bare for _, bare in times)


@pytest.fixture(scope="module")
def documentation(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    search = os.pathsep.join([str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    command = [sys.executable, "-m", "sphinx", "-q", "-d", str(folder / "trees"), str(ROOT / "docs"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": search})
    return folder


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documentation_fits_every_width(browser: Browser, documentation: Path, axe: str, name: str) -> None:
    for width, scheme in ((1280, "light"), (400, "dark")):
        found = Opened.at(browser, documentation / f"{name}.html", width, scheme)
        assert found.errors == []
        assert [url for url in found.requests if not url.startswith(("file:", "data:"))] == []
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        assert found.page.evaluate(OUTSIDE) == []
        assert found.page.evaluate(HIDDEN_SCROLLING) == []
        assert serious(found, axe) == []
        found.close()


def test_documentation_has_copy_buttons(browser: Browser, documentation: Path) -> None:
    found = Opened.at(browser, documentation / "quickstart.html", 1280)
    buttons = found.page.locator("button.copybtn")
    assert buttons.count() == found.page.locator("article div.highlight pre").count() > 0
    found.close()


# --- names of any length, script and content ------------------------------------------------------------------------------------

LONG = "L" * 10_000
HEBREW = (
    "\u05de\u05d8\u05dc\u05d4 \u0645\u0647\u0645\u0629 \u202eabc"  # Hebrew, Arabic, and an override of the direction
)
MARKUP = '</script><script>window.executed = 1</script><img src="https://example.org/x" onerror="window.executed = 2">'
ATTRIBUTE = "\" onmouseover='window.executed = 3' {{ 7 * 7 }} ${window.executed = 4}"
ODD = (LONG, HEBREW, MARKUP, ATTRIBUTE)

ODD_TASKS = (
    LONG,
    "</script><script>executed = 5</script><img src=x onerror='executed = 6'>",
)  # a module has no point in its name
ODD_WORKLOAD = f"""
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional
from paretorch.workloads import MultiTaskModel, Splits, TensorStream, Workload

NAMES = {ODD_TASKS!r}


@dataclass(frozen=True)
class Odd(Workload):
    title = {HEBREW!r}

    @property
    def tasks(self):
        return NAMES

    def data(self):
        x = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
        stream = TensorStream(x, dict(zip(NAMES, x.unbind(dim=1))))
        return Splits(*[(stream,)] * 3)

    def model(self):
        return MultiTaskModel(nn.Linear(2, 1), {{name: nn.Linear(1, 1) for name in NAMES}})

    def losses(self, outputs, targets):
        return {{name: functional.mse_loss(outputs[name][:, 0], targets[name]) for name in outputs}}

    def metrics(self):
        return {{name: () for name in NAMES}}
"""


DISPATCHED = """(event) => document.querySelectorAll("body *")
  .forEach((each) => each.dispatchEvent(new Event(event, { bubbles: true })))"""


def odd_diagnosis() -> pt.Diagnosis:
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 4), *(nn.Linear(4, 1) for _ in ODD)])
    return pt.diagnose(
        model,
        lambda m, x: {
            name: (m[place + 1](m[0](x))[:, 0] - x[:, place]).square().mean() for place, name in enumerate(ODD)
        },
        [torch.randn(8, 4) for _ in range(5)],
        warmup=0,
    )


@pytest.fixture(scope="module")
def odd_pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A study, a front and a diagnosis whose tasks, treatments and workloads have odd names."""
    folder = tmp_path_factory.mktemp("odd")
    of = many.study(ODD, epochs=3, workloads=ODD, name=MARKUP)
    many.finished(folder / "study", of, ODD, 3, failed=[ATTRIBUTE])
    file = folder / "odd.py"
    file.write_text(ODD_WORKLOAD, encoding="utf-8")
    train_front(Run(str(file), epochs=1, front="mt2o", front_options={"models": 3}), folder / "front", progress=None)
    return {
        "study": report(folder / "study").page,
        "front": write_front_page(folder / "front"),
        "diagnosis": write_diagnosis(odd_diagnosis(), folder / "diagnosis", MARKUP),
    }


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["study", "front", "diagnosis"])
def test_page_with_odd_names_executes_nothing_and_fits(
    browser: Browser, odd_pages: dict[str, Path], axe: str, name: str, width: int
) -> None:
    found = Opened.at(browser, odd_pages[name], width)
    assert found.errors == []
    assert [url for url in found.requests[1:] if not url.startswith(("data:", "blob:"))] == []
    for event in ("mouseover", "click", "focusin"):
        found.page.evaluate(DISPATCHED, event)
    assert found.page.evaluate("window.executed === undefined")
    assert found.page.locator("img[onerror], [onmouseover]").count() == 0
    text = found.page.evaluate("document.body.textContent")
    assert all(odd in text for odd in (ODD_TASKS if name == "front" else ODD))
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.evaluate(OUTSIDE) == []
    assert serious(found, axe) == []
    found.close()
