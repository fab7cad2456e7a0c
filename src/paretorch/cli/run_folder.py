"""The folder and the device of a run that a command trains: those of an existing run where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paretorch.training.names.devices import available_devices
from paretorch.training.names.methods import canonical_method
from paretorch.training.names.workloads import data_digest, digest
from paretorch.training.record.continuation import copy_run, shorter_run, why_not_continued
from paretorch.training.record.run_identity import DATA, plain_values, read_run
from paretorch.training.run import Run

AUTO = "auto"
KINDS = ("cuda", "mps", "cpu")


@dataclass(frozen=True)
class PlacedRun:
    """A run with its device and its folder.

    Args:
        run: with a device, never ``"auto"``.
        folder: where it is trained.
        notes: what a user should know before the training, one sentence each.
    """

    run: Run
    folder: Path
    notes: tuple[str, ...] = ()


def place_run(run: Run, out: Path | None) -> PlacedRun:
    """Decides the device of a run with the device ``"auto"``, and its folder.

    The device is that of an equal run that was started before, else the fastest one of this machine. Without ``out`` the folder
    is ``runs/WORKLOAD-KEY``; a copy of an equal run with fewer epochs in ``runs`` is continued there. ``IMTLG`` and ``IMTLG()``
    are one method: a new run has the form with brackets, and one that was started keeps the form that it has.

    Args:
        run: its device may be ``"auto"``.
        out: the folder, if it was named.

    Raises:
        ValueError: ``run.json`` of a folder is damaged.
        BlockingIOError: another process trains the run that is to be continued.
    """
    fastest = available_devices()
    kinds = [*fastest, *(kind for kind in KINDS if kind not in fastest)]
    devices = kinds if run.device == AUTO else [run.device]
    new = replace(run, device=devices[0], method=canonical_method(run.method))
    candidates = [replace(run, device=device, method=method) for device in devices for method in _spellings(run.method)]
    if out is not None:
        started = read_run(out)
        found = next((each for each in candidates if started is not None and _is_same(started["run"], each)), None)
        chosen = new if found is None else found
        return PlacedRun(chosen, out, _device_notes(chosen, new))
    for each in candidates:
        if (_default_folder(each) / "run.json").exists():
            return PlacedRun(each, _default_folder(each), _device_notes(each, new))
    for each in candidates:
        shorter = _longest_of_shorter(each)
        if shorter is None:
            continue
        source, epochs = shorter
        if reason := why_not_continued(each):
            note = f"{source} has {epochs} epochs of this run, but they cannot be continued: {reason}. This run starts anew."
            return PlacedRun(each, _default_folder(each), (note,))
        copy_run(source, _default_folder(each))
        note = f"Continues a copy of {source}, which has {epochs} epochs of this run or fewer."
        return PlacedRun(each, _default_folder(each), (note, *_device_notes(each, new)))
    return PlacedRun(new, _default_folder(new))


def is_finished(run: Run, folder: Path) -> bool:
    """Whether the folder contains the result of this run.

    Raises:
        ValueError: ``run.json`` is damaged.
    """
    started = read_run(folder) if (folder / "result.json").exists() else None
    return started is not None and started["run"] == plain_values(run)


def finished_note(run: Run, folder: Path) -> str:
    """That a run was finished before, and what to do for more."""
    reason = why_not_continued(run)
    more = (
        f"More epochs need a new run: {reason}"
        if reason
        else f"A larger --epochs than {run.epochs} continues it; another --seed is a new run"
    )
    return f"This run was finished before, so nothing was trained. {more}. To train it again, remove {folder}."


def _is_same(started: object, run: Run) -> bool:
    """Whether a recorded run is ``run``, with any number of epochs."""
    return isinstance(started, dict) and {**started, "epochs": run.epochs} == plain_values(run)


def _default_folder(run: Run) -> Path:
    return Path("runs") / f"{Path(run.workload).stem}-{run.key}"


def _spellings(method: str) -> list[str]:
    """The forms in which an equal method may be recorded, the given one first."""
    canonical = canonical_method(method)
    return list(dict.fromkeys([method, canonical, canonical.removesuffix("()")]))


def _device_notes(run: Run, new: Run) -> tuple[str, ...]:
    if run.device == new.device:
        return ()
    return (f"This run was started on {run.device}, and stays there; --device {new.device} is a new run.",)


def _longest_of_shorter(run: Run) -> tuple[Path, int] | None:
    """The folder and the epochs of the longest run in ``runs`` that differs from ``run`` only in having fewer epochs."""
    files = digest(run.workload), data_digest(run.workload, run.options)
    found = []
    for path in Path("runs").glob(f"{Path(run.workload).stem}-*/run.json"):
        started = read_run(path.parent)
        shorter = shorter_run(path.parent, run)
        if started is not None and shorter is not None and (started.get("source"), started.get(DATA)) == files:
            found.append((shorter.epochs, path.parent))
    if not found:
        return None
    epochs, folder = max(found)
    return folder, epochs
