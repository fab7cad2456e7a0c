"""Written files: links are not followed, and files of others are not replaced."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paretorch as pt
from command_line import call
from paretorch.pareto import Front
from paretorch.pareto.files.export import export
from paretorch.pareto.files.ownership import metadata
from paretorch.reports.figures import paper
from paretorch.storage import atomic
from paretorch.studies.job import Job
from paretorch.studies.runner import train_jobs
from paretorch.training.fronts.run import load_front
from paretorch.training.loop import train
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from paretorch.workloads.synthetic import Synthetic
from studies_progress import RecordedProgress
from training_runs import TINY, stop_after

RUN = Run(TINY, epochs=2, batch_size=8)
SMALL = ["synthetic(samples=64, hidden=8)", "--models", "2", "--epochs", "1", "--batch-size", "32"]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's, to which links are planted."""
    path = tmp_path / "victim.txt"
    path.write_text("mine")
    return path


NAMES = (".run.json.writing", ".result.json.writing", ".events.jsonl.writing", "run.json", "result.json")


@pytest.mark.parametrize("name", NAMES)
def test_link_is_replaced_and_its_target_is_unchanged(tmp_path: Path, victim: Path, name: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if name.startswith("."):
        (folder / name).symlink_to(victim)
        train(RUN, folder, progress=None)
        assert Result.load(folder).run == RUN
    else:  # a run's own names: its content, which is no run's, is refused
        (folder / name).symlink_to(victim)
        with pytest.raises(ValueError, match=r"\.json"):
            train(RUN, folder, progress=None)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["events.jsonl", ".lock"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
def test_run_writes_to_no_link_and_no_fifo(tmp_path: Path, victim: Path, name: str, kind: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if kind == "fifo":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(victim if kind == "link" else tmp_path / "new")
    with pytest.raises((OSError, ValueError), match=r"is a link or no regular file|no run\.json"):
        train(RUN, folder, progress=None)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_link_in_place_of_events_is_refused(tmp_path: Path, victim: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "run", progress=stop_after(1, of=2))
    events = tmp_path / "run" / "events.jsonl"
    events.rename(tmp_path / "moved")
    events.symlink_to(tmp_path / "moved")
    before = (tmp_path / "moved").read_bytes()
    with pytest.raises(OSError, match="is a link or no regular file"):
        train(RUN, tmp_path / "run", progress=None)
    assert (tmp_path / "moved").read_bytes() == before


@pytest.mark.filterwarnings("ignore::paretorch.training.monitoring.training_monitor.TrainingWarning")  # of epoch-7
@pytest.mark.parametrize("inside", ["", ".writing"])
def test_checkpoint_is_not_written_to_a_linked_folder(tmp_path: Path, inside: str) -> None:
    others = tmp_path / "others"
    (others / "epoch-7").mkdir(parents=True)
    (others / "epoch-7" / "state.json").write_text("theirs")
    (tmp_path / "run").mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path / "run", progress=stop_after(1, of=2))
    place = tmp_path / "run" / "checkpoint"
    if inside:
        (place / inside).symlink_to(others)
        train(RUN, tmp_path / "run", progress=None)
    else:
        for path in place.iterdir():
            path.rename(others / path.name)
        place.rmdir()
        place.symlink_to(others)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # the checkpoint epoch-7 is damaged
            with pytest.raises((OSError, ValueError), match="checkpoint"):
                train(RUN, tmp_path / "run", progress=None)
    assert (others / "epoch-7" / "state.json").read_text() == "theirs"


def test_run_files_without_run_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"theirs": 1}\n')
    with pytest.raises(ValueError, match=r"contains events\.jsonl but no run\.json"):
        train(RUN, tmp_path, progress=None)
    assert (tmp_path / "events.jsonl").read_text() == '{"theirs": 1}\n'
    assert not (tmp_path / "run.json").exists()


def test_atomic_write_creates_a_new_file(tmp_path: Path, victim: Path) -> None:
    temporary = tmp_path / ".a.json.writing"
    plants: tuple[Callable[[], object], ...] = (
        lambda: temporary.symlink_to(victim),
        lambda: os.link(victim, temporary),
        lambda: os.mkfifo(temporary),
    )
    for plant in plants:
        plant()
        atomic.write(tmp_path / "a.json", b"new")
        assert (tmp_path / "a.json").read_bytes() == b"new"
        assert victim.read_text() == "mine"
        assert not os.path.lexists(temporary)
    temporary.mkdir()
    with pytest.raises(OSError, match="writing"):
        atomic.write(tmp_path / "a.json", b"newer")
    assert (tmp_path / "a.json").read_bytes() == b"new"


def test_log_is_not_written_to_a_link(tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-0.txt").symlink_to(victim)
    job = Job("A", Run("fake", method="A", epochs=1), tmp_path / "A")
    train_jobs([job], RecordedProgress(), workers=1, logs=tmp_path / "logs", train="studies_fake_training:train")
    assert victim.read_text() == "mine"
    (tmp_path / "linked").symlink_to(tmp_path / "A")
    other = Job("B", Run("fake", method="B", epochs=1), tmp_path / "B")
    with pytest.raises(OSError, match="is a link to another folder"):
        train_jobs(
            [other], RecordedProgress(), workers=1, logs=tmp_path / "linked", train="studies_fake_training:train"
        )


@pytest.fixture(scope="module")
def front() -> Front:
    found: Front = pt.fit_front(
        Synthetic(samples=64, hidden=8),
        pt.MT2O(),
        preferences=pt.preferences(2, 3, margin=0.1),
        epochs=1,
        batch_size=32,
    )
    return found


WEIGHTS = {"mine": torch.arange(5.0)}
FOREIGN: dict[str, Callable[[Path], object]] = {
    "weights": lambda path: save_file(WEIGHTS, path),
    "weights with other metadata": lambda path: save_file(WEIGHTS, path, metadata={"format": "pt"}),
    "text": lambda path: path.write_text("mine"),
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to(path.parent / "elsewhere"),
    "a fifo": lambda path: os.mkfifo(path),
}


def flat_content(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    "name", ["model-000.safetensors", "model-002.safetensors", "model-017.safetensors", "front.json"]
)
@pytest.mark.parametrize("kind", FOREIGN)
def test_front_replaces_only_files_of_fronts(tmp_path: Path, front: Front, name: str, kind: str) -> None:
    FOREIGN[kind](tmp_path / name)
    before = flat_content(tmp_path)
    with pytest.raises(ValueError, match="so it is not replaced: move it away, or name another folder"):
        front.save(tmp_path)
    assert flat_content(tmp_path) == before
    code, printed = call("front", *SMALL, "--out", str(tmp_path))
    assert code == 2
    assert "so it is not replaced" in printed
    assert "epoch" not in printed, "it is refused before training"
    assert flat_content(tmp_path) == before


def test_front_replaces_a_front(tmp_path: Path, front: Front) -> None:
    (tmp_path / "notes.safetensors").write_text("mine")
    (tmp_path / "model-1.safetensors").write_text("mine")
    larger = pt.fit_front(
        Synthetic(samples=64, hidden=8),
        pt.MT2O(),
        preferences=pt.preferences(2, 5, margin=0.1),
        epochs=1,
        batch_size=32,
    )
    larger.save(tmp_path)
    front.save(tmp_path)
    assert len(list(tmp_path.glob("model-0*.safetensors"))) == 3
    template = Synthetic(samples=64, hidden=8).model()
    assert torch.equal(Front.load(tmp_path, template).losses, front.losses)
    (tmp_path / "front.json").unlink()  # as of a save that was killed
    front.save(tmp_path)
    assert {(tmp_path / name).read_text() for name in ("notes.safetensors", "model-1.safetensors")} == {"mine"}


def test_front_replaces_a_front_of_an_earlier_version(tmp_path: Path, front: Front) -> None:
    """Its models have no mark; its front.json has their digests."""
    import hashlib

    from paretorch.pareto.files.front_folder import _checksum

    front.save(tmp_path)
    values = json.loads((tmp_path / "front.json").read_text())
    values.pop("checksum")
    for place, path in enumerate(sorted(tmp_path.glob("model-*.safetensors"))):
        save_file(load_file(path), path)
        assert metadata(path) == {}
        values["sha256"][place] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "front.json").write_text(json.dumps({**values, "checksum": _checksum(values)}))
    assert len(Front.load(tmp_path, front.template)) == 3
    front.save(tmp_path)
    assert metadata(tmp_path / "model-000.safetensors") != {}


@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
@pytest.mark.sampled(2)
def test_export_replaces_only_exports(tmp_path: Path, front: Front, ending: str) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    example = torch.zeros(2, 2) if ending == ".onnx" else None
    example = (
        next(iter(Synthetic(samples=64).data().train[0].batches(2, order=None))).inputs if example is not None else None
    )
    path = tmp_path / f"model{ending}"
    export(front, 0, path, example=example)
    first = path.read_bytes()
    export(front, 2, path, example=example)
    second = path.read_bytes()
    assert first != second
    path.rename(tmp_path / f"other{ending}")
    path.symlink_to(tmp_path / f"other{ending}")
    export(front, 0, path, example=example)
    assert (tmp_path / f"other{ending}").read_bytes() == second, "the link is replaced, not followed"
    for kind, plant in FOREIGN.items():
        target = tmp_path / kind / f"x{ending}"
        target.parent.mkdir()
        plant(target)
        before = flat_content(target.parent)
        with pytest.raises(ValueError, match="is no exported model, so it is not replaced"):
            export(front, 0, target, example=example)
        assert flat_content(target.parent) == before


def test_export_does_not_replace_other_onnx_models(tmp_path: Path, front: Front) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "theirs", [], [])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "x.onnx"))
    before = (tmp_path / "x.onnx").read_bytes()
    inputs = next(iter(Synthetic(samples=64).data().train[0].batches(2, order=None))).inputs
    with pytest.raises(ValueError, match="is no exported model"):
        export(front, 0, tmp_path / "x.onnx", example=inputs)
    assert (tmp_path / "x.onnx").read_bytes() == before


def test_pick_does_not_replace_the_models_of_the_front(tmp_path: Path) -> None:
    folder = tmp_path / "front"
    assert call("front", *SMALL, "--out", str(folder))[0] == 0
    before = flat_content(folder)
    (tmp_path / "alias").symlink_to(folder)
    for target in (folder / "model-001.safetensors", tmp_path / "alias" / "model-000.safetensors"):
        code, printed = call("pick", str(folder), "0.5,0.5", "--export", str(target))
        assert code == 2
        assert "is no exported model, so it is not replaced" in printed
    assert flat_content(folder) == before
    assert len(load_front(folder)) == 2


@pytest.mark.parametrize("name", ["report.html", "report.md"])
@pytest.mark.sampled(2)
def test_report_replaces_only_reports(tmp_path: Path, name: str) -> None:
    train(RUN, tmp_path, progress=None)
    assert call("report", str(tmp_path))[0] == 0
    assert call("report", str(tmp_path))[0] == 0
    (tmp_path / name).write_text("<title>my notes</title>\n")
    code, printed = call("report", str(tmp_path))
    assert code == 2
    assert f"{name} is not a page that paretorch wrote, so it is not replaced" in printed
    assert (tmp_path / name).read_text() == "<title>my notes</title>\n"
    assert call("report", str(tmp_path), "--out", str(tmp_path / "elsewhere"))[0] == 0


def test_figures_and_tables_are_not_written_to_links(tmp_path: Path, victim: Path) -> None:
    train(RUN, tmp_path / "run", progress=None)
    (tmp_path / "run" / "report").mkdir()
    for name in ("learning_curves.svg", "overview.md", "seeds.csv"):
        (tmp_path / "run" / "report" / name).symlink_to(victim)
    assert call("report", str(tmp_path / "run"))[0] == 0
    assert victim.read_text() == "mine"
    assert (tmp_path / "run" / "report" / "learning_curves.svg").read_bytes().startswith(b"<?xml")
    assert paper.FORMATS
    (tmp_path / "other").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report").symlink_to(tmp_path / "other")
    code, printed = call("report", str(tmp_path / "run"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "is a link to another folder" in printed
    assert not list((tmp_path / "other").iterdir())


def test_front_page_replaces_only_pages(tmp_path: Path) -> None:
    assert call("front", *SMALL, "--out", str(tmp_path))[0] == 0
    assert call("front", *SMALL, "--out", str(tmp_path))[0] == 0
    (tmp_path / "front.html").write_text("mine")
    code, printed = call("front", *SMALL, "--out", str(tmp_path))
    assert code == 2
    assert "front.html is not a page that paretorch wrote" in printed
    assert (tmp_path / "front.html").read_text() == "mine"
