"""The diagnosis of a workload: the command, its messages, and the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import paretorch as pt
from command_line import call
from paretorch.diagnosis.workload import diagnose_workload
from paretorch.reports.page.diagnosis import diagnosis_page, write_diagnosis
from paretorch.training.run import Run

SMALL = ("--batches", "5", "--warmup", "3")
DIGITS = "digits(ink=True, train=512)"
FILE = """
import torch
from torch import nn
from torch.nn import functional
from paretorch.workloads import MultiTaskModel, Splits, TensorStream, Workload
from dataclasses import dataclass

@dataclass(frozen=True)
class Pair(Workload):
    frozen: bool = False
    broken: bool = False

    @property
    def tasks(self):
        return ("one", "other")

    def data(self):
        x = torch.randn(160, 3, generator=torch.Generator().manual_seed(0))
        stream = (TensorStream(x, {"one": x[:, 0], "other": x[:, 1]}),)
        return Splits(stream, stream, stream)

    def model(self):
        encoder = nn.Linear(3, 4)
        if self.frozen:
            encoder.requires_grad_(False)
        return MultiTaskModel(encoder, {task: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)) for task in self.tasks})

    def losses(self, outputs, targets):
        found = {task: functional.mse_loss(output, targets[task]) for task, output in outputs.items()}
        return {task: loss / (0 if self.broken and task == "other" else 1) for task, loss in found.items()}

    def metrics(self):
        return {}
"""


class Elements(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_diagnose_command_prints_the_verdict_and_writes_page_and_values(tmp_path: Path) -> None:
    code, printed = call("diagnose", DIGITS, *SMALL, "--out", str(tmp_path / "new"))
    assert code == 0
    assert "No conflict worth treating: use the sum, scale the losses." in printed
    values = json.loads((tmp_path / "new" / "diagnosis.json").read_text())
    assert values["tasks"] == ["left", "right", "ink"]
    assert values["trained"]["norms"][2] > 100 * values["trained"]["norms"][0]
    page = Elements((tmp_path / "new" / "diagnosis.html").read_text())
    assert "ink" in page.text
    assert ("html", {"lang": "en"}) in page.tags
    outside = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert [link for link in outside if link is None or "//" in link] == []
    scrolls = [attributes for tag, attributes in page.tags if attributes.get("class") == "scroll"]
    assert len(scrolls) == sum(tag == "table" for tag, _ in page.tags) >= 4


def test_diagnose_command_takes_a_file_and_chosen_tasks(tmp_path: Path) -> None:
    file = tmp_path / "pair.py"
    file.write_text(FILE)
    code, printed = call("diagnose", str(file), *SMALL, "--batch-size", "16")
    assert code == 0
    assert "2 tasks, 16 shared parameters, 5 batches of 16 samples." in printed
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{file}(frozen=True)"], "the encoder 'encoder' is frozen"),
        (["{file}(broken=True)"], "the loss of task 'other' is inf"),
        (["{file}", "--tasks", "one"], "a single task, 'one'"),
        (["{file}", "--tasks", "onw"], "unknown task"),
        (["{file}", "--batches", "2"], "--batches is a whole number of at least 4"),
        (["{file}", "--optimizer", "MTAdam(lr=0.001)"], "balances by itself"),
        (["digitz"], "did you mean 'digits'"),
    ],
)
def test_diagnose_command_refuses_with_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "pair.py").write_text(FILE)
    given = [argument.format(file=tmp_path / "pair.py") for argument in arguments]
    code, printed = call("diagnose", "--batch-size", "16", *(SMALL if "--batches" not in given else ()), *given)
    assert code == 2
    assert message in printed


def test_diagnosis_of_a_workload_is_equal_when_repeated_and_differs_between_seeds() -> None:
    def losses(seed: int) -> list[float]:
        run = Run("digits", {"train": 256}, seed=seed, batch_size=16)
        values: list[float] = diagnose_workload(run, measured=4, warmup=2).trained.losses.tolist()
        return values

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def evil() -> pt.Diagnosis:
    torch.manual_seed(0)
    names = ("<script>alert(1)</script>", "b")
    parts = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)])
    return pt.diagnose(
        parts,
        lambda m, x: {
            name: (m[place + 1](m[0](x))[:, 0] - x[:, place]).square().mean() for place, name in enumerate(names)
        },
        [torch.randn(8, 3) for _ in range(5)],
        warmup=0,
    )


def test_diagnosis_page_escapes_names() -> None:
    page = Elements(diagnosis_page(evil(), "</title><b>"))
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("script"), tags.count("b")) == (1, 0), "the page's own script alone"


def test_diagnosis_page_does_not_replace_another_file(tmp_path: Path) -> None:
    (tmp_path / "diagnosis.html").write_text("mine")
    with pytest.raises(ValueError, match="is not a page that paretorch wrote"):
        write_diagnosis(evil(), tmp_path, "title")
    assert not (tmp_path / "diagnosis.json").exists()
