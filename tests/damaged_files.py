"""Damage of files, drawn at random: changed bytes, and JSON of another shape with valid digests."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretorch.storage.seals import SEAL, json_digest, sealed
from paretorch.training.record.run_identity import run_digest
from paretorch.workloads.loading.unreadable import UnreadableError

SECONDS = 30.0  # in which a file must be refused or read

DEEP = json.loads("[" * 400 + "]" * 400)
VALUES: list[Any] = [
    None, True, -1, 0, 3, 10**40, 1e300, 0.5, "", "nan", "text", "../../etc/passwd", "/etc/hostname", "\x00", [], {}, [[]],
    [None], {"a": None}, [0.5, "b"], DEEP,
]  # fmt: skip


def outcome(read: Callable[[], object], names: tuple[str, ...]) -> bool:
    """Whether reading succeeds; else it must raise an error that a user understands and that has one of the names.

    Every other exception, such as a KeyError, fails the test.
    """
    began = time.perf_counter()
    refusal: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except (ValueError, OSError, UnreadableError) as error:
            refusal = error
    assert time.perf_counter() - began < SECONDS
    assert refusal is None or any(name in str(refusal) for name in names), repr(refusal)
    assert not isinstance(refusal, UnicodeError), repr(refusal)
    return refusal is None


def flipped(content: bytes, draws: random.Random) -> bytes:
    """With one bit changed."""
    changed = bytearray(content)
    changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, draws: random.Random) -> bytes:
    """With a piece changed to other bytes of the file."""
    size = min(len(content), draws.randrange(1, 40))
    start, source = (draws.randrange(len(content) - size + 1) for _ in range(2))
    return content[:start] + content[source : source + size] + content[start + size :]


def truncated(content: bytes, draws: random.Random) -> bytes:
    """Without its end."""
    return content[: draws.randrange(len(content))]


def changed_bytes(content: bytes, draws: random.Random) -> bytes:
    """Other bytes than the content."""
    change: Callable[[bytes, random.Random], bytes] = draws.choice([flipped, overwritten, truncated])
    while (after := change(content, draws)) == content:
        pass
    return after


def reshaped(value: Any, draws: random.Random) -> Any:
    """A JSON value in which one value, at any depth, is replaced, removed or added."""
    result = copy.deepcopy(value)
    holder, key = draws.choice(list(_places(result)))
    change = draws.choice(["replace", "replace", "replace", "remove", "add"])
    if change == "replace":
        holder[key] = copy.deepcopy(draws.choice(VALUES))
    elif change == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(draws.choice([holder[key], *VALUES])))
    else:
        holder[draws.choice(["nan", "other", "", "/etc/hostname"])] = copy.deepcopy(draws.choice(VALUES))
    return result


def _places(value: Any) -> Any:
    """The holder and the key of every value within."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def reshape_file(path: Path, draws: random.Random) -> None:
    """Reshapes a JSON file and writes the digests anew, as a program would that computes them."""
    values = json.loads(path.read_bytes())
    digests = {"checksum", "digest", SEAL} if path.name != "front.json" else {"checksum"}
    kept = {name: value for name, value in values.items() if name in digests}
    after = reshaped({name: value for name, value in values.items() if name not in digests}, draws)
    if path.name == "result.json":
        content = hashlib.sha256(json.dumps(after, sort_keys=True).encode()).hexdigest()
        after["checksum"] = {**kept["checksum"], "content": content}
    elif path.name == "front.json":
        after["checksum"] = hashlib.sha256(json.dumps(after, sort_keys=True).encode()).hexdigest()
    elif path.name == "run.json":
        after["digest"] = run_digest(after.get("run"), after.get("source"))
        after = sealed(after)
    elif path.name == "pack.json":
        after["digest"] = json_digest(after)
    elif SEAL in kept:
        after = sealed(after)
    path.write_text(json.dumps(after))
