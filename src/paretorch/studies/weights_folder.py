"""The folder of a search for static weights: ``weights.json``, and a checkpoint while the search is not finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretorch.balance.static_weights import StaticWeights
from paretorch.storage import atomic
from paretorch.storage.damage import naming_damaged
from paretorch.storage.json_files import from_json, parse_json, read_json, to_json, write_json
from paretorch.storage.locks import acquire_lock
from paretorch.storage.seals import SEAL, check_seal, sealed
from paretorch.storage.value_types import typed
from paretorch.studies.population import Population, check_population, search_population
from paretorch.training.balanced_run import SHARE, balanced_weights, declared
from paretorch.training.record.run_identity import MISSING
from paretorch.training.run import Run

FILE = "weights.json"
CHECKPOINT = "checkpoint"
OWNER = "search.json"  # in the folder of the checkpoint: the search to which it belongs
SEARCH = "search of"  # the key of what decides the weights
SOURCE = "source"  # the name of the digest of the workload's file in what decides the weights
KEY_DIGITS = 12  # in the name of a folder


@dataclass(frozen=True)
class WeightsOptions:
    """How weights are found.

    Args:
        share: of the epochs of a run that the balanced run takes.
        members: of the population; None: the weights are those of the balanced run.
        rounds: of the population.
    """

    share: float = SHARE
    members: int | None = None
    rounds: int = 5


@dataclass(frozen=True)
class FoundWeights:
    """The result of a search.

    Args:
        balanced: the weights of the balanced run.
        population: of the search that starts from them; None without one.
    """

    balanced: StaticWeights
    population: Population | None = None

    def cost(self, share: float) -> float:
        """In runs: the balanced run's share and one for each member."""
        return share + (0 if self.population is None else len(self.population.members))

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights found, by task."""
        return self.balanced.weights if self.population is None else self.population.weights


def default_folder(run: Run, options: WeightsOptions) -> Path:
    """``runs/weights-WORKLOAD-KEY``, where the key depends on all that decides the weights: other searches have other folders.

    Args:
        run: see :func:`find_weights_in`.
        options: see :func:`find_weights_in`.
    """
    content = json.dumps(declared(run, **to_json(options)), sort_keys=True).encode()
    key = hashlib.sha256(content).hexdigest()[:KEY_DIGITS]
    return Path("runs") / f"weights-{Path(run.workload).stem}-{key}"


def find_weights_in(
    folder: Path, run: Run, options: WeightsOptions, report: Callable[[str], object] = lambda line: None
) -> FoundWeights:
    """The weights of the search in a folder: read if it is finished, else found, from where it was interrupted.

    Args:
        folder: of :data:`FILE`; made if necessary. A folder that is made for a search that is refused is removed.
        run: see :func:`~paretorch.training.balanced_run.balanced_weights` and
            :func:`~paretorch.studies.population.search_population`.
        options: how the weights are found.
        report: receives lines about the progress.

    Raises:
        ValueError: an option is out of range, the run cannot be weighted, or a file is damaged or belongs to another search,
            which may be finished or not.
        BlockingIOError: another process searches in this folder.
        MovedFolderError: the folder was moved, removed or replaced during the search.
        FloatingPointError: a loss or gradient is not finite; the message names the task.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    message = f"another process searches weights in {folder}: wait for it, or give another folder (--out)"
    with acquire_lock(folder / ".lock", message):
        try:
            checkpoint = folder / CHECKPOINT
            atomic.check_own(checkpoint)
            if (found := read_weights(folder / FILE, run, options)) is None:
                own_checkpoint(checkpoint, run, options)
                found = _search(run, options, report, checkpoint)
                write_json(folder / FILE, sealed(to_json(_content(run, options, found))))
            else:
                report(found.balanced.text)
            atomic.remove_folder(checkpoint)
            return found
        except BaseException:
            with contextlib.suppress(OSError):
                _remove_unused(folder, is_new)
            raise


def own_checkpoint(checkpoint: Path, run: Run, options: WeightsOptions) -> None:
    """Records the search to which a checkpoint belongs, or checks the record.

    Args:
        checkpoint: the folder.
        run: see :func:`find_weights_in`.
        options: see :func:`find_weights_in`.

    Raises:
        ValueError: it belongs to another one, or the record is damaged.
    """
    path = checkpoint / OWNER
    if (before := _read_owner(path)) is not None:
        _check_search(path, before, run, options, f"Continue that search with its own options, or remove {checkpoint}")
    elif not _has_states(checkpoint):  # else an earlier version wrote them: they are checked one by one
        atomic.make_folder(checkpoint)
        write_json(path, sealed({SEARCH: declared(run, **to_json(options))}))


def _read_owner(path: Path) -> dict[str, Any] | None:
    """What decides the search to which a checkpoint belongs, by name; None if there is no such record.

    Raises:
        ValueError: the record is damaged.
    """
    try:
        with naming_damaged(path, f"Remove the folder {path.parent} to search again from the start"):
            content = typed(read_json(path), Mapping[str, Any])
            check_seal(content, required=True)
            return _values(typed(content[SEARCH], Mapping[str, str]))
    except FileNotFoundError:
        return None


def _remove_unused(folder: Path, is_new: bool) -> None:
    """Removes the checkpoint if no state was stored in it, and the folder if it is new and empty."""
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_dir() and not _has_states(checkpoint):
        atomic.remove_folder(checkpoint)
    if is_new and [path.name for path in folder.iterdir()] == [".lock"]:
        atomic.remove_folder(folder)


def _has_states(checkpoint: Path) -> bool:
    return any(checkpoint.rglob("*.safetensors"))


def _search(run: Run, options: WeightsOptions, report: Callable[[str], object], checkpoint: Path) -> FoundWeights:
    if options.members is not None:
        check_population(run, options.members, options.rounds)  # before the balanced run
    balanced = balanced_weights(run, options.share, checkpoint / "balanced")
    report(balanced.text)
    if options.members is None:
        return FoundWeights(balanced)
    population = search_population(run, options.members, options.rounds, balanced, report, checkpoint / "population")
    return FoundWeights(balanced, population)


def _content(run: Run, options: WeightsOptions, found: FoundWeights) -> dict[str, Any]:
    content: dict[str, Any] = {
        "weights": dict(found.weights),
        "search": "run" if found.population is None else "population",
        "cost in runs": found.cost(options.share),
        "run": run.to_json(),
        SEARCH: declared(run, **to_json(options)),
        "balanced run": found.balanced,
    }
    return content if found.population is None else content | {"population": found.population}


def read_weights(path: Path, run: Run, options: WeightsOptions) -> FoundWeights | None:
    """The result of a finished search; None if there is none.

    Args:
        path: of the file.
        run: see :func:`find_weights_in`.
        options: see :func:`find_weights_in`.

    Raises:
        ValueError: the file is damaged, or belongs to another search or to an unknown one.
    """
    cure = "Remove it; the same command searches again"
    try:
        with naming_damaged(path, cure):
            content = typed(read_json(path), Mapping[str, Any])
            check_seal(content, required=SEARCH in content)
            found = typed(content.get(SEARCH), Mapping[str, str] | None)
            before = None if found is None else _values(found)
    except FileNotFoundError:
        return None
    if before is None or SEAL not in content:
        raise ValueError(
            f"{path} does not name the search to which its weights belong: an earlier version or another program wrote it. Give "
            "another folder (--out), or remove the file to search again"
        )
    _check_search(path, before, run, options, "Remove the file to search again")
    with naming_damaged(path, cure):
        content = from_json(content)
        balanced = typed(content["balanced run"], StaticWeights)
        population = content.get("population")
        return FoundWeights(balanced, None if population is None else typed(population, Population))


def _check_search(path: Path, before: Mapping[str, Any], run: Run, options: WeightsOptions, cure: str) -> None:
    """Checks that a file belongs to a search.

    Raises:
        ValueError: it belongs to another one; the message contains the first difference.
    """
    now = _values(declared(run, **to_json(options)))
    different = [name for name in [*now, *before] if before.get(name, MISSING) != now.get(name, MISSING)]
    if not different:
        return
    name = different[0]
    reason = (
        "the workload's file has changed since"
        if name == SOURCE
        else f"its {name} is {before.get(name)!r}, expected {now.get(name)!r}"
    )
    raise ValueError(f"{path} belongs to another search of weights: {reason}. {cure}, or give another folder (--out)")


def _values(search: Mapping[str, str]) -> dict[str, Any]:
    """What decides a search, by name: the fields of the run and the options."""
    values = {name: parse_json(text, allow_nan=True) for name, text in search.items()}
    return {**typed(values.pop("run", {}), Mapping[str, Any]), **values}
