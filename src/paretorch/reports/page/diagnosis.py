"""Page of a diagnosis: the recommendation, problems, the reasons, and the tables behind them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from paretorch.diagnosis.results import Diagnosis
from paretorch.diagnosis.tables import summary_lines, text_tables
from paretorch.extras import extra
from paretorch.reports.page.embedded import asset, content_policy, template
from paretorch.reports.page.writing import HTML, check_page, write_page
from paretorch.reports.tables.tables import Table
from paretorch.storage.json_files import write_json
from paretorch.training.record import machine

with extra("studies"):
    from markupsafe import Markup

PAGE, DATA = "diagnosis.html", "diagnosis.json"


def tables_of(found: Diagnosis) -> list[Table]:
    """The tables of a diagnosis, for terminal and page."""
    return [Table(*table) for table in text_tables(found)]


def check_target(folder: str | Path) -> None:
    """Checks that :func:`write_diagnosis` can write into a folder, which is not made.

    Args:
        folder: of the files.

    Raises:
        OSError: it is no folder, or cannot be written.
        ValueError: ``diagnosis.html`` exists and is not such a page.
    """
    folder = Path(folder)
    check_page(folder / PAGE, HTML)
    if (folder / DATA).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / DATA))
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))


def write_diagnosis(found: Diagnosis, folder: str | Path, title: str) -> Path:
    """Writes ``diagnosis.html``, one file that needs no network, and ``diagnosis.json`` into a folder, which is made if need be.

    Args:
        found: the diagnosis.
        folder: of the files.
        title: name of the workload or model.

    Returns:
        The page's path.

    Raises:
        ValueError: ``diagnosis.html`` exists and is not such a page.
    """
    page = Path(folder) / PAGE
    check_page(page, HTML)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_json(page.parent / DATA, found.to_json())
    write_page(page, diagnosis_page(found, title), HTML)
    return page


def diagnosis_page(found: Diagnosis, title: str) -> str:
    """The page as HTML; every text from outside is escaped.

    Args:
        found: the diagnosis.
        title: name of the workload or model.
    """
    script = asset("frames.js")
    return template("diagnosis.html.jinja").render(
        title=title,
        verdict=_sentence(found.verdict),
        problems=[_sentence(problem) for problem in found.problems],
        summary=summary_lines(found),
        advice=[(_sentence(each.condition)[:-1], each) for each in found.advice],
        tables=tables_of(found),
        notes=found.notes,
        facts=[(name, value) for name, value in machine.versions().items()],
        style=Markup(asset("page.css")),
        script=Markup(script),
        policy=content_policy(script),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
