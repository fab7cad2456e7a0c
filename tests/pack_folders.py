"""A small pack, written without images."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from paretorch.storage.seals import json_digest
from paretorch.workloads.packs.pack import DIGEST, Manifest

EDGE = 6


def write_pack(folder: Path, seed: int = 0) -> None:
    """A pack of five squares with random pixels."""
    folder.mkdir()
    rows = np.random.default_rng(seed).integers(0, 256, size=(5, EDGE * EDGE * 3), dtype=np.uint8)
    entries = [["train", "a", f"{i}.png", i, zlib.crc32(row.tobytes()), ""] for i, row in enumerate(rows)]
    index = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    digest = hashlib.sha256(index).hexdigest()
    counts = {"train": {"a": 5}}
    manifest = Manifest("classification", EDGE, False, 0, counts, {"a": "b"}, 5, 5, len(index), digest)
    (folder / "rows.u8").write_bytes(rows.tobytes())
    (folder / "index.jsonl").write_bytes(index)
    (folder / "pack.json").write_text(json.dumps(manifest.to_json()))


def change_manifest(path: Path, **values: Any) -> None:
    """Changes values of ``pack.json``, with the digest that belongs to them."""
    changed = {name: value for name, value in json.loads(path.read_text()).items() if name != DIGEST} | values
    path.write_text(json.dumps(changed | {DIGEST: json_digest(changed)}))
