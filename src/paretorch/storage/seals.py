"""Digests within files: a change of one bit is found when the file is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"  # the key of the digest of all other values
LINK = re.compile(
    rb', "chain": "([0-9a-f]{64})"\}\n\Z'
)  # the end of a line that has a digest of all lines before and of itself


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with a digest of them.

    Example:
        >>> is_sealed(sealed({"epoch": 3})), is_sealed({**sealed({"epoch": 3}), "epoch": 4}), is_sealed({"epoch": 3})
        (True, False, False)
    """
    # through JSON once, so that what is written and what is read give one text: keys become strings
    return {**values, SEAL: json_digest(json.loads(json.dumps(values)))}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Whether the values have a digest, and are those that it was made of."""
    return values.get(SEAL) == json_digest({name: value for name, value in values.items() if name != SEAL})


def check_seal(values: Mapping[str, Any], required: bool) -> None:
    """Checks the digest of values that were read.

    Args:
        values: with or without a digest; the digest is checked wherever there is one.
        required: whether it may not be missing, as it may in files of earlier versions.

    Raises:
        ValueError: it is missing or differs; the message is the reason.
    """
    if (required or SEAL in values) and not is_sealed(values):
        raise ValueError("its content differs from what was written")


def json_digest(values: Mapping[str, Any]) -> str:
    """The SHA-256 of plain values, independent of the order of names and of a file's indentation."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Chain:
    """A digest of all lines of a growing file, repeated in some of them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def copy(self) -> Chain:
        """The chain after the same lines."""
        result = Chain()
        result._hash = self._hash.copy()
        return result

    def add(self, line: bytes) -> bytes:
        """The line, which follows those before."""
        self._hash.update(line)
        return line

    def linked(self, line: bytes) -> bytes:
        """A line that is a JSON object, with a digest of all lines before and of itself; it follows those before."""
        digest = self._hash.copy()
        digest.update(line)
        return self.add(line[:-2] + f', "chain": "{digest.hexdigest()}"}}\n'.encode())

    def verify(self, line: bytes) -> bool:
        """Adds a line of a file. False: it has a digest, which differs from that of the lines, or it should have one."""
        match = LINK.search(line)
        digest = self._hash.copy()
        self._hash.update(line)
        if match is None:
            return False
        digest.update(line[: match.start()] + b"}\n")
        return digest.hexdigest().encode() == match[1]
