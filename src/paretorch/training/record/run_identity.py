"""Checks that the files of a folder belong to one run.

``run.json`` contains the run, the digests of the workload's file and of its data files, a digest of these three, and one of all
its values. Each epoch's line of ``events.jsonl`` repeats the digest of the three, ``result.json`` contains the run and the
checksum of the events, a checkpoint the run and the digest. A file that was copied from another run, and a folder renamed
to the name of another run's folder, are therefore detected.

A run that was continued with more epochs (:mod:`paretorch.training.record.continuation`) has the earlier numbers of epochs in
``run.json``: events and checkpoints that were written before have the digest of the run with that number.

Runs of earlier versions have no such digest. They are read if the run in ``run.json`` and the one in ``result.json`` are the
expected one; whether their events come from the same version of the workload's file is not checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretorch.storage.json_files import parse_json, read_json, to_json, write_json
from paretorch.storage.regular_files import open_regular
from paretorch.storage.seals import SEAL, is_sealed, sealed
from paretorch.storage.value_types import typed
from paretorch.training.names.workloads import data_digest, find_workload
from paretorch.training.record.result import Result, missing_file_error
from paretorch.training.run import Run, decoded_run

FORMAT = 3  # of run.json; raised when older versions of the package can no longer read the file
UNSEALED = 2  # up to this one, the file has no digest of all its values
CONTINUED = "continued"  # the key of the earlier numbers of epochs in run.json
DATA = "data"  # the key of the digest of the data files in run.json
OPTIONAL: Mapping[str, Any] = {  # values other than the run, where they are present
    CONTINUED: tuple[int, ...],
    **dict.fromkeys(("source", DATA, "digest", "commit", "key"), str),
    **dict.fromkeys(("versions", "machine"), Mapping[str, Any]),
}
MISSING = object()  # unlike every value
RUN = "run"  # the key of the digest in the line of an epoch
EPOCH = b'{"event": "epoch"'  # the first bytes of such a line
MAX_LINE = 1 << 24  # bytes of a line of events


def run_digest(run: Mapping[str, Any], source: str | None, data: str | None = None) -> str:
    """The digest of a run's values, of its workload's file and of the data.

    Args:
        run: as :meth:`~paretorch.training.run.Run.to_json` returns it.
        source: the SHA-256 of the workload's file; None if the workload is no file.
        data: that of its data files; None if there are none.
    """
    values = {"run": run, "source": source} | ({} if data is None else {DATA: data})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def accepted_owners(started: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str | None]]:
    """The runs to which files of the folder may belong, with their digests: the run, and itself before it was continued.

    Args:
        started: the content of ``run.json``.
    """
    run, digest = started["run"], started.get("digest")
    files = started.get("source"), started.get(DATA)
    earlier = [run | {"epochs": epochs} for epochs in started.get(CONTINUED, ())]
    return [(run, digest), *((each, None if digest is None else run_digest(each, *files)) for each in earlier)]


def plain_values(run: Run) -> dict[str, Any]:
    """The run as a JSON file stores it: with lists in place of tuples."""
    values: dict[str, Any] = json.loads(json.dumps(run.to_json()))
    return values


def events_digest(folder: Path) -> str | None:
    """The digest in the epochs of ``events.jsonl``; None if there are no epochs, or those of an earlier version."""
    try:
        with open_regular(folder / "events.jsonl") as file:
            while line := file.readline(MAX_LINE):
                if line.startswith(EPOCH):  # the lines of steps have no digest
                    event = parse_json(line)
                    return event.get(RUN) if isinstance(event, dict) else None
    except (FileNotFoundError, ValueError):
        pass
    return None


def read_run(folder: Path) -> dict[str, Any] | None:
    """The content of ``run.json``; None if no run was started.

    Raises:
        ValueError: the file is damaged, or was edited.
    """
    path = folder / "run.json"
    restart = f"Remove the folder {folder} to start this run again"
    try:
        values = read_json(path)
        if not isinstance(values, dict) or not isinstance(values.get("run"), dict):
            raise ValueError("it contains no run")
        if typed(values.get("format", UNSEALED), int, "format") not in range(1, FORMAT + 1):
            raise ValueError(f"its format is {values['format']}, this version reads 1 to {FORMAT}")
        is_whole = is_sealed(values) if SEAL in values else values.get("format") != FORMAT
        values["run"] = decoded_run(values["run"])
        typed(values["run"], Run, "run")
        for name, kind in OPTIONAL.items():
            typed(values.get(name), kind | None, name)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}. {restart}") from None
    expected = run_digest(values["run"], values.get("source"), values.get(DATA))
    if not is_whole or values.get("digest") not in (None, expected):
        raise ValueError(
            f"{path} differs from what the run wrote: its digest differs, so it was edited. Restore the file. {restart}"
        )
    return values


def write_run(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes ``run.json``.

    Args:
        folder: of the run.
        values: what :func:`read_run` returns, without format and digest of the file, or with those that it had.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    # the format first and the digest last: one damage does not reach both
    content = {"format": FORMAT} | {name: value for name, value in values.items() if name not in ("format", SEAL)}
    write_json(folder / "run.json", sealed(to_json(content)))


def check_run(path: Path, found: Mapping[str, Any], run: Run) -> None:
    """Checks that a file belongs to ``run``.

    Args:
        path: the file, or the folder, that names its run.
        found: the run that it names, as a JSON object.
        run: the expected run.

    Raises:
        ValueError: it belongs to another run; the message contains the first difference.
    """
    expected = plain_values(run)
    if found == expected:
        return
    name = next(name for name in [*expected, *found] if found.get(name, MISSING) != expected.get(name, MISSING))
    epochs = found.get("epochs")
    same_but_epochs = {**found, "epochs": expected["epochs"]} == expected
    if same_but_epochs and isinstance(epochs, int) and epochs > expected["epochs"]:
        raise ValueError(
            f"{path} contains this run with {epochs} epochs, which cannot be reduced to {expected['epochs']}: give "
            "more epochs, or train into another folder"
        )
    raise ValueError(
        f"{path} contains another run: its {name} is {found.get(name)!r}, expected {expected.get(name)!r}. Was its folder "
        "renamed, or were files copied into it? Restore them, train into another folder, or remove this one"
    )


def check_events(folder: Path, started: Mapping[str, Any] | None) -> None:
    """Checks that ``events.jsonl`` belongs to the run in ``run.json``.

    Args:
        folder: of the run.
        started: the content of ``run.json``; None if there is none.

    Raises:
        ValueError: it is missing, or belongs to another run.
    """
    if started is None or started.get("digest") is None:
        return
    if not os.path.lexists(folder / "events.jsonl"):
        raise missing_file_error(folder / "events.jsonl")
    if events_digest(folder) not in [digest for _, digest in accepted_owners(started)]:
        raise foreign_file_error(folder / "events.jsonl")


def check_source(folder: Path, run: Run, recorded: str | None, present: str | None) -> None:
    """Checks that a workload's file has not changed since a run was started.

    Args:
        folder: of the run.
        run: names the workload.
        recorded: the SHA-256 of its file when the run was started; None if it is no file.
        present: its SHA-256 now.

    Raises:
        ValueError: it has changed.
    """
    if recorded != present:
        raise ValueError(
            f"{run.workload} has changed since the run in {folder} was started, so it cannot be resumed. "
            f"Train into another folder, or restore the file"
        )


def check_data(folder: Path, run: Run, recorded: str | None) -> None:
    """Checks that the data files of a workload have the content with which a run was started.

    Args:
        folder: of the run.
        run: names the workload.
        recorded: their digest when the run was started; None if there were none, or an earlier version started the run.

    Raises:
        ValueError: one has changed. A missing one is none: a finished run can be read where its data are not.
    """
    if files := changed_data(run, recorded):
        raise ValueError(
            f"{files} has changed since the run in {folder} was started, so its numbers are those of other data. Train into "
            "another folder (--out), or restore the file"
        )


def changed_data(run: Run, recorded: str | None) -> str:
    """The names of a workload's data files where their digest is not the recorded one; empty where it is, or is unknown."""
    if recorded is None or data_digest(run.workload, run.options) in (None, recorded):
        return ""
    return " or ".join(map(str, find_workload(run.workload, run.options).data_files()))


def foreign_file_error(path: Path) -> ValueError:
    """The error for a file that does not belong to the run in the ``run.json`` of its folder."""
    folder = path.parent
    return ValueError(
        f"{path} does not belong to the run in {folder / 'run.json'}: it was copied from another run. Restore the file, or "
        f"remove the folder {folder} and run again"
    )


def verified_result(folder: Path, run: Run | None = None) -> Result:
    """The result of a finished run, after checking that all files of the folder belong to that run.

    Args:
        folder: of the run.
        run: the expected run; None: the one in ``run.json``.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: a file is damaged, was edited, or belongs to another run.
    """
    result, started = Result.load(folder), read_run(folder)
    stored = plain_values(result.run)
    if run is not None:
        check_run(folder, stored if started is None else started["run"], run)
    if started is not None:
        check_run(folder / "result.json", stored, Run.from_json(started["run"]))
        check_events(folder, started)
    return result
