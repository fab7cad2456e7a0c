"""Array files of every number type, damaged headers, and other files with the extension of arrays."""

from __future__ import annotations
