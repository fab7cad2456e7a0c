"""Which run the files of a folder belong to. Each says so itself: the name of a folder says nothing.

``run.json`` holds the run, the digest of the workload's file, and a digest of both. Every epoch's line of ``events.jsonl``
repeats that digest, ``result.json`` holds the run and the checksum of the events, a checkpoint the run and the digest. So a
file that was copied from another run, and a folder that was renamed into another's place, are found out.

Runs of earlier versions have no such digest. They are read where the run in ``run.json`` and the one in ``result.json`` are
the planned one; that their events are of the same version of a workload's file is not known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.training.record.result import Result
from paretorch.training.run import Run

RUN = "run"  # the key of the digest in the line of an epoch
EPOCH = b'{"event": "epoch"'  # how such a line begins
LONGEST = 1 << 24  # bytes of a line of events


def digest_of(run: Mapping[str, Any], source: str | None) -> str:
    """The digest of a run's values and of its workload's file.

    Args:
        run: as :meth:`~paretorch.training.run.Run.to_json` gives it.
        source: the SHA-256 of the workload's file; None where it is no file.
    """
    return hashlib.sha256(json.dumps({"run": run, "source": source}, sort_keys=True).encode()).hexdigest()


def events_digest(folder: Path) -> str | None:
    """The digest that the epochs in ``events.jsonl`` have; None where there are none, or those of an earlier version."""
    try:
        with open_regular(folder / "events.jsonl") as file:
            while line := file.readline(LONGEST):
                if line.startswith(EPOCH):  # steps have none
                    event = json.loads(line)
                    return event.get(RUN) if isinstance(event, dict) else None
    except (FileNotFoundError, ValueError, RecursionError):
        pass
    return None


def read_run(folder: Path) -> dict[str, Any] | None:
    """The content of ``run.json``, or None where no run was started.

    Raises:
        ValueError: the file is damaged, or was edited.
    """
    path = folder / "run.json"
    again = f"Remove the folder {folder} to start this run again"
    try:
        values = json.loads(read_regular(path))
        if not isinstance(values, dict) or not isinstance(values.get("run"), dict):
            raise ValueError("no run in it")
        for name, kind, absent in (("workload", str, None), ("options", dict, {}), ("front", str, "")):
            if not isinstance(values["run"].get(name, absent), kind):
                raise ValueError(f"its run has no {name} of type {kind.__name__}")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}. {again}") from None
    if values.get("digest") not in (None, digest_of(values["run"], values.get("source"))):
        raise ValueError(
            f"{path} is not what the run wrote: its digest differs, so it was edited. Put it back. {again}"
        )
    return values


def check_run(path: Path, found: Mapping[str, Any], run: Run) -> None:
    """Checks that a file is of ``run``.

    Args:
        path: the file, or the folder, that says which run it is of.
        found: the run that it says, as a JSON object.
        run: that is expected.

    Raises:
        ValueError: it is of another; the message names what differs.
    """
    wanted = json.loads(json.dumps(run.to_json()))
    if found == wanted:
        return
    name = next(name for name in [*wanted, *found] if found.get(name) != wanted.get(name))
    raise ValueError(
        f"{path} holds another run: its {name} is {found.get(name)!r}, asked for is {wanted.get(name)!r}. Was its folder "
        "renamed, or were files copied into it? Put them back, train into another folder, or remove this one"
    )


def check_events(folder: Path, started: Mapping[str, Any] | None) -> None:
    """Checks that ``events.jsonl`` is of the run in ``run.json``.

    Args:
        folder: of the run.
        started: the content of ``run.json``; None where there is none.

    Raises:
        ValueError: it is of another run.
    """
    expected = None if started is None else started.get("digest")
    if expected is not None and events_digest(folder) != expected:
        raise foreign(folder / "events.jsonl")


def foreign(path: Path) -> ValueError:
    """The error for a file that is not of the run in the ``run.json`` beside it."""
    folder = path.parent
    return ValueError(
        f"{path} is not of the run in {folder / 'run.json'}: it was copied from another run. Put the file back, or remove the "
        f"folder {folder} and run again"
    )


def claimed(folder: Path, run: Run | None = None) -> Result:
    """The result of a finished run, after checking that every file of the folder is of that run.

    Args:
        folder: of the run.
        run: that was planned; None: whichever ``run.json`` names.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: a file is damaged, was edited, or is of another run.
    """
    result, started = Result.load(folder), read_run(folder)
    own = json.loads(json.dumps(result.run.to_json()))
    if run is not None:
        check_run(folder, own if started is None else started["run"], run)
    if started is not None:
        check_run(folder / "result.json", own, Run.from_json(started["run"]))
        check_events(folder, started)
    return result
